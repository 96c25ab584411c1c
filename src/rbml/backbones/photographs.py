"""Features of a photograph that a head from few examples works well on: those of a network, and its colours."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HUES, _SATURATIONS, _VALUES = 8, 4, 4

BINS = _HUES * _SATURATIONS * _VALUES
"""The number of features of :func:`colours`."""


class WithColours(nn.Module):
    r"""Features of a network on the unit sphere, and beside them the colours of the picture.

    .. math:: f(x) = \Big(\frac{\sqrt{g(x)}}{\|\sqrt{g(x)}\|},\; a\, \sqrt{h(x)}\Big)

    with g(x) the non-negative features of the network and h(x) the shares of the bins of a histogram of hue, saturation
    and value. Square roots make few large numbers count less; that of a histogram has unit norm by itself (Hellinger
    kernel: Arandjelović, Zisserman 2012). A network that was trained to tell things apart whatever their colour leaves
    out what tells a green apple from a red one.

    Args:
        net: from pictures ``(n, 3, h, w)`` in 0 .. 1 to features that are not negative.
        share: a, how much the colours count beside the network.
    """

    share: Tensor

    def __init__(self, net: nn.Module, share: float = 0.5) -> None:
        """Put the colours beside the network."""
        super().__init__()
        self.net = net
        self.register_buffer("share", torch.tensor(share))

    def forward(self, x: Tensor) -> Tensor:
        """Map pictures ``(n, 3, h, w)`` to ``(n, width + BINS)``."""
        features = F.normalize(self.net(x).clamp(min=0).sqrt(), dim=1)
        return torch.cat([features, self.share * colours(x).sqrt()], 1)


def colours(x: Tensor) -> Tensor:
    """Return the share of the pixels in each bin of hue (8), saturation (4) and value (4).

    Args:
        x: pictures ``(n, 3, h, w)``, red, green and blue in 0 .. 1.

    Returns:
        ``(n, 128)``, summing to one.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    >>> colours(red).nonzero()
    tensor([[ 0, 15]])
    """
    hue, saturation, value = _hsv(x.flatten(2))
    bins = [
        (part * count).long().clamp(0, count - 1)
        for part, count in ((hue, _HUES), (saturation, _SATURATIONS), (value, _VALUES))
    ]
    places = (bins[0] * _SATURATIONS + bins[1]) * _VALUES + bins[2]
    ones = torch.full_like(value, 1 / value.shape[1])
    return torch.zeros(len(x), BINS, dtype=x.dtype, device=x.device).scatter_add(1, places, ones)


def _hsv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue, saturation and value ``(n, p)``, each 0 .. 1, of ``(n, 3, p)``; grey has the hue 0."""
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    red, green, blue = x.unbind(1)
    scale = chroma.clamp(min=1e-8)
    sixth = torch.where(
        value == red,
        ((green - blue) / scale) % 6,
        torch.where(value == green, (blue - red) / scale + 2, (red - green) / scale + 4),
    )
    hue = torch.where(chroma > 0, sixth / 6, 0.0)
    return hue, chroma / value.clamp(min=1e-8), value
