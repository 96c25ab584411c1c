"""The networks of ANML: a wide prediction network, and a narrower one that gates its features."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from rbml.errors import UsageError
from rbml.models.modulated import Modulated
from rbml.models.oml_net import started


def anml_net(outputs: int, channels: int = 1, size: int = 28, filters: int = 256, gate_filters: int = 112) -> Modulated:
    """Return the prediction network of ANML, whose features a second, narrower network lets pass or not.

    Beaulieu et al. 2020 (arXiv:2002.09571) and their code: both networks have three convolutions 3x3 without padding,
    each with an instance norm (there a batch norm of one picture) and ReLU, the first two with max pooling; of 28 x 28
    pictures 9 x 256 features remain, and a linear layer makes their gates from 9 x 112. Convolutions have no bias here,
    because the norm would remove it; pictures there have three equal channels. One picture costs 0.1 billion
    multiplications.

    Args:
        outputs: the number of classes; the paper's code has 1,000, more than it needs.
        channels: the channels of the input pictures ``(n, channels, size, size)``.
        size: height and width of the pictures.
        filters: the channels of the prediction network.
        gate_filters: the channels of the network that gates it.

    Raises:
        UsageError: for pictures below 22 pixels, of whose last map a norm leaves nothing.
    """
    left = ((size - 2) // 2 - 2) // 2 - 2
    if left < 2:
        raise UsageError(f"pictures of size {size} are too small for ANML's network: use --size 22 or more")
    gates = nn.Sequential(*_convolutions(channels, gate_filters), nn.Linear(gate_filters * left**2, filters * left**2))
    head = nn.Linear(filters * left**2, outputs)
    made = Modulated(nn.Sequential(*_convolutions(channels, filters)), gates, head)
    started(made)
    return made


def _convolutions(channels: int, filters: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise([channels, filters, filters, filters]):
        norm = nn.GroupNorm(filters, filters)  # a group per channel: an instance norm with a gain and a shift
        layers += [nn.Conv2d(before, after, 3, bias=False), norm, nn.ReLU(), nn.MaxPool2d(2)]
    return [*layers[:-1], nn.Flatten()]
