"""ResNet-12, the usual network for few-shot learning on 84 x 84 photographs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from rbml.errors import UsageError
from rbml.models.conv4 import NORMS, Norm

_SLOPE = 0.1


class Residual(nn.Module):
    """Three convolutions 3x3 with norms, beside a convolution 1x1 with a norm; halves the height and width."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        """Build one block."""
        super().__init__()
        widths = [inputs, outputs, outputs, outputs]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=norm != "batch") for a, b in pairwise(widths))
        self.norms = nn.ModuleList(NORMS[norm](outputs) for _ in range(3))
        self.beside = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=norm != "batch"), NORMS[norm](outputs))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs, h, w)`` to ``(n, outputs, h // 2, w // 2)``."""
        y = x
        for place, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            y = F.leaky_relu(y, _SLOPE) if place < 2 else y
        output: Tensor = self.pool(F.leaky_relu(y + self.beside(x), _SLOPE))
        return output


class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions, norm, leaky ReLU and max pooling; then a linear ``head``.

    Oreshkin et al. 2018 (TADAM, arXiv:1805.10123); with these widths in Lee et al. 2019 (MetaOptNet, arXiv:1904.03758),
    without its DropBlock.

    Args:
        outputs: the number of classes, or of regression targets.
        channels: the channels of the input pictures ``(n, channels, h, w)``.
        widths: the filters of the blocks; TADAM has (64, 128, 256, 512), and both papers 84 x 84 pictures in colour.
        norm: ``"batch"``, ``"group"`` (8 groups), ``"layer"`` (one group) or ``"none"``.
        size: height and width of the pictures.

    Raises:
        UsageError: for pictures too small to be halved by every block.
    """

    def __init__(
        self,
        outputs: int,
        channels: int = 3,
        widths: Sequence[int] = (64, 160, 320, 640),
        norm: Norm = "batch",
        size: int = 84,
    ) -> None:
        """Build the blocks with PyTorch's own initialisation."""
        super().__init__()
        if size < 2 ** len(widths):
            raise UsageError(f"pictures of size {size} are too small for {len(widths)} blocks that halve them")
        self.blocks = nn.Sequential(*(Residual(a, b, norm) for a, b in pairwise([channels, *widths])))
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, channels, h, w)`` to ``(n, outputs)``."""
        output: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return output
