"""The networks of the problems as ordinary modules, which every PyTorch library takes."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(*widths: int) -> nn.Module:
    """Return layers of the given widths with tanh between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Conv4(nn.Module):
    """Four strided convolutions with batch norm on the batch's statistics, and the mean of the last map.

    MAML's network for Omniglot (Finn et al. 2017, arXiv:1703.03400).
    """

    def __init__(self, ways: int, width: int = 64) -> None:
        super().__init__()
        channels = [1, width, width, width, width]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in pairwise(channels))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, track_running_stats=False) for _ in range(4))
        self.head = nn.Linear(width, ways)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Block(nn.Module):
    """Attention and an MLP, each behind a layer norm; attention is written out, since fused kernels have no second
    derivative."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        parts = self.qkv(self.before(x)).reshape(rows, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weights = torch.softmax(query @ key.transpose(-2, -1) / math.sqrt(width // self.heads), -1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(rows, length, width))
        grown: Tensor = self.down(nn.functional.gelu(self.up(self.between(x)), approximate="tanh"))
        return x + grown


class Transformer(nn.Module):
    """Blocks on vectors ``(n, length, width)`` and a linear head on their mean."""

    def __init__(self, ways: int, width: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = nn.Linear(width, ways)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean(1))
        return logits
