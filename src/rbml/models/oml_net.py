"""The network of OML: six wide convolutions without norms, and a prediction network of two linear layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from rbml.errors import UsageError

_LARGE, _SMALL = (2, 1, 2, 1, 2, 2), (1, 1, 1, 2, 1, 2)
_FROM = 60


class OMLNet(nn.Sequential):
    """Convolutions 3x3 without padding, each with ReLU (``body``); then ``hidden``, ReLU, and a linear ``head``.

    Javed and White 2019 (arXiv:1905.12588) and their code: 84 x 84 pictures, 256 channels, strides 2 1 2 1 2 2, so that
    2,304 features remain; a hidden layer of 1,024; weights after He et al. 2015 (arXiv:1502.01852), biases zero. The
    representation is ``body``; the prediction network, which :func:`rbml.algorithms.oml` adapts, is ``hidden`` and
    ``head``. It is a plain sequence, so that a frozen body runs once. One picture costs 1.3 billion multiplications.

    Args:
        outputs: the number of classes; the paper's code has 1,000, more than it needs.
        channels: the channels of the input pictures ``(n, channels, size, size)``.
        size: height and width of the pictures.
        filters: the channels of every convolution.
        width: of the hidden layer of the prediction network.
        strides: of the convolutions; ``None`` takes the paper's for pictures of 60 pixels and more, and 1 1 1 2 1 2 for
            smaller ones, with which the code of ANML runs OML on 28 x 28 and which also leaves 2,304 features.

    Raises:
        UsageError: for pictures that are too small for the strides.
    """

    def __init__(
        self,
        outputs: int,
        channels: int = 1,
        size: int = 84,
        filters: int = 256,
        width: int = 1024,
        strides: Sequence[int] | None = None,
    ) -> None:
        """Build the layers."""
        strides = tuple(strides) if strides is not None else _LARGE if size >= _FROM else _SMALL
        left = size
        for stride in strides:
            left = (left - 3) // stride + 1 if left >= 3 else 0
        if left < 1:
            raise UsageError(f"pictures of size {size} are too small for convolutions with {strides=}")
        layers: list[nn.Module] = []
        for (before, after), stride in zip(pairwise([channels, *[filters] * len(strides)]), strides, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride), nn.ReLU()]
        body = nn.Sequential(*layers, nn.Flatten())
        first, head = nn.Linear(filters * left**2, width), nn.Linear(width, outputs)
        super().__init__(OrderedDict(body=body, hidden=first, activation=nn.ReLU(), head=head))
        started(self)


def started(model: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers with the variance 2 / inputs; their biases become zero."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)
