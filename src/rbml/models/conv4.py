"""The four-layer convolutional network of the few-shot literature."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import gcd
from typing import Literal

import torch
from torch import Tensor, nn

from rbml.errors import UsageError, unknown
from rbml.models.dropout import Dropout

Norm = Literal["batch", "group", "layer", "none"]
Pool = Literal["stride", "max"]

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda filters: nn.GroupNorm(gcd(8, filters), filters),
    "layer": lambda filters: nn.GroupNorm(1, filters),
    "none": lambda filters: nn.Identity(),
}


class Block(nn.Module):
    """Convolution 3x3, norm, ReLU; halves the height and width."""

    def __init__(
        self,
        inputs: int,
        filters: int,
        norm: Norm,
        pool: Pool,
        activation: Callable[[], nn.Module],
        dropout: float = 0.0,
    ) -> None:
        """Build one block; batch norm removes the mean, so that a bias before it would have no effect."""
        super().__init__()
        stride = 2 if pool == "stride" else 1
        self.conv = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=norm != "batch")
        self.norm = NORMS[norm](filters)
        self.activation = activation()
        self.pool = nn.MaxPool2d(2) if pool == "max" else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs, h, w)`` to ``(n, filters, about h/2, about w/2)``."""
        output: Tensor = self.dropout(self.pool(self.activation(self.norm(self.conv(x)))))
        return output


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, norm, ReLU; then a linear ``head``.

    Vinyals et al. 2016 (arXiv:1606.04080) use max pooling; MAML on Omniglot uses strided convolutions and the mean over
    the last map instead (Finn et al. 2017, arXiv:1703.03400, section 5.2 and its code), which needs a quarter of the
    arithmetic.

    Args:
        outputs: the number of classes, or of regression targets.
        channels: the channels of the input pictures ``(n, channels, size, size)``.
        filters: the filters of each block; 64 on Omniglot, 32 on mini-ImageNet in MAML.
        norm: ``"batch"``, ``"group"`` (8 groups), ``"layer"`` (one group) or ``"none"``.
        pool: ``"stride"`` (and the mean of the last map) or ``"max"`` (and the flattened last map).
        size: height and width of the pictures.
        activation: the activation module; a smooth one makes central differences meaningful.
        context: how many context parameters (CAVIA, Zintgraf et al. 2019, arXiv:1810.03642) scale and shift the maps of
            the third block (FiLM): a parameter ``context`` that starts at zero; 0 means none.
        dropout: the share of each block's maps that is dropped while training across tasks
            (:class:`rbml.models.dropout.Dropout`).

    Raises:
        UsageError: for an unknown norm or pool, pictures too small for it, or a dropout that is no share.
    """

    def __init__(
        self,
        outputs: int,
        channels: int = 1,
        filters: int = 64,
        norm: Norm = "batch",
        pool: Pool = "stride",
        size: int = 28,
        activation: Callable[[], nn.Module] = nn.ReLU,
        context: int = 0,
        dropout: float = 0.0,
    ) -> None:
        """Build the blocks with PyTorch's own initialisation."""
        super().__init__()
        if norm not in NORMS:
            raise unknown("norm", norm, NORMS)
        if pool not in ("stride", "max"):
            raise unknown("pool", pool, ("stride", "max"))
        if pool == "max" and size < 16:
            raise UsageError(f"pictures of size {size} are too small for pool='max', which halves them four times")
        self.pool = pool
        self.context = nn.Parameter(torch.zeros(context)) if context else None
        self.film = nn.Linear(context, 2 * filters) if context else None
        widths = [channels, filters, filters, filters, filters]
        self.blocks = nn.Sequential(*(Block(a, b, norm, pool, activation, dropout) for a, b in pairwise(widths)))
        self.head = nn.Linear(filters if pool == "stride" else filters * (size // 16) ** 2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, channels, size, size)`` to ``(n, outputs)``."""
        maps = self.blocks[:3](x)
        if self.context is not None and self.film is not None:
            scale, shift = self.film(self.context)[:, None, None].chunk(2)
            maps = maps * (1 + scale) + shift
        maps = self.blocks[3](maps)
        features = maps.mean((2, 3)) if self.pool == "stride" else maps.flatten(1)
        output: Tensor = self.head(features)
        return output
