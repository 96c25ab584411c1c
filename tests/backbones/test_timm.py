"""Models of timm, with a small library in its place: timm itself needs torchvision, which is not installed here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from rbml import backbones, models
from rbml.backbones.norm import FrozenBatchNorm
from rbml.errors import DataError, UsageError


class Net(nn.Sequential):
    num_features = 4

    def __init__(self, classes: int | None) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        if classes is None:
            self.append(nn.Linear(4, 1000))

    def reset_classifier(self, classes: int) -> None:
        assert classes == 0
        del self[-1]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def create(name: str, pretrained: bool, num_classes: int | None, checkpoint_path: str = "") -> nn.Module:
        asked.append({"name": name, "pretrained": pretrained, "file": checkpoint_path})
        if pretrained and name == "offline":
            raise OSError("no network\nat all")
        return Net(num_classes)

    config = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "input_size": (3, 96, 96)}
    fake = SimpleNamespace(
        __version__="1.0",
        is_model=lambda name: name in ("tiny", "offline"),
        list_models=lambda pattern: ["tiny"],
        create_model=create,
        data=SimpleNamespace(resolve_model_data_config=lambda net: config),
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    return asked


def test_a_model_of_timm_is_a_backbone(library: list[dict[str, Any]]) -> None:
    backbone = backbones.load("timm:tiny")
    assert library == [{"name": "tiny", "pretrained": True, "file": ""}]
    assert (backbone.name, backbone.width, backbone.facts) == ("timm:tiny", 4, {"size": 96, "channels": 3})
    x = torch.rand(2, 3, 9, 9)
    net = backbone.body.net
    assert isinstance(net[1], FrozenBatchNorm)
    normal = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    assert torch.allclose(backbone.body(x), net(normal))


def test_weights_of_a_file_or_none(library: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.touch()
    model = models.timm(5, "tiny", weights=str(file))
    assert model(torch.rand(2, 3, 9, 9)).shape == (2, 5)
    models.timm(5, "tiny", weights="none")
    assert [(one["pretrained"], bool(one["file"])) for one in library] == [(False, True), (False, False)]
    with pytest.raises(DataError, match="there is no file of weights nowhere: name a file, or hub, or none"):
        models.timm(5, "tiny", weights="nowhere")


def test_what_cannot_be_had(library: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="timm has no model named 'tny'; there is tiny"):
        backbones.load("timm:tny")
    with pytest.raises(DataError, match=r"weights of timm:offline cannot be had \(no network\): download them"):
        backbones.load("timm:offline")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'rbml\[timm\]'"):
        backbones.load("timm:tiny")
