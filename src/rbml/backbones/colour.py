"""Colour beside what a network sees: networks that were trained to name things learn to overlook it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BINS = (16, 4, 4)
"""Of hue, saturation and value."""

COUNT = 2 * 16 * 4 * 4
"""How many features are added to those of the network."""


class Coloured(nn.Module):
    r"""The features of a network, and how much of each colour there is in the picture and in its middle.

    .. math:: \left[\; \frac{\sqrt{f}}{\|\sqrt{f}\|},\; s \sqrt{p_\mathrm{all}},\; s \sqrt{p_\mathrm{middle}} \;\right]

    with p the shares of 256 colours (hue, saturation and value in 16 x 4 x 4 bins), and the middle half of both sides.
    The square root makes distances between shares Hellinger distances, in which rare colours count too. Each of the
    three blocks has a fixed length, so that a linear head sees all of them. No gradient passes through the shares.

    Hellinger kernel: Arandjelovic and Zisserman 2012 ("Three things everyone should know to improve object retrieval").

    Args:
        body: from pictures ``(n, 3, h, w)`` in 0 .. 1 to features ``(n, width)``; negative ones count as zero.
        share: s, the length of each block of colours.
    """

    def __init__(self, body: nn.Module, share: float = 0.5) -> None:
        """Keep the network."""
        super().__init__()
        self.body, self.share = body, share

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, 3, h, w)`` to ``(n, width + COUNT)``."""
        seen = F.normalize(self.body(x).clamp(min=1e-12).sqrt(), dim=1)
        top, left = x.shape[-2] // 4, x.shape[-1] // 4
        middle = x[..., top : x.shape[-2] - top, left : x.shape[-1] - left]
        shares = [self.share * colours(part).sqrt().to(seen.dtype) for part in (x, middle)]
        return torch.cat([seen, *shares], 1)


def colours(x: Tensor) -> Tensor:
    """Return the share of each colour in pictures ``(n, 3, h, w)``, as ``(n, 256)``.

    >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    >>> colours(red).nonzero().tolist(), float(colours(red).max())
    ([[0, 15]], 1.0)
    """
    codes = torch.zeros_like(x[:, 0], dtype=torch.long)
    for part, bins in zip(hsv(x.detach()).unbind(1), _BINS, strict=True):
        codes = codes * bins + (part * bins).long().clamp(0, bins - 1)
    codes = codes.flatten(1)
    empty = torch.zeros(len(x), COUNT // 2, dtype=x.dtype, device=x.device)
    return empty.scatter_add(1, codes, torch.ones_like(codes, dtype=x.dtype)) / codes.shape[1]


def hsv(x: Tensor) -> Tensor:
    """Return hue, saturation and value, each 0 .. 1, of red, green and blue ``(n, 3, h, w)``; hue is 0 for grey."""
    red, green, blue = x.unbind(1)
    high, low = x.amax(1), x.amin(1)
    span = (high - low).clamp(min=1e-12)
    by_red, by_green, by_blue = (green - blue) / span % 6, (blue - red) / span + 2, (red - green) / span + 4
    hue = torch.where(high == red, by_red, torch.where(high == green, by_green, by_blue)) / 6
    return torch.stack([torch.where(high > low, hue, 0), (high - low) / high.clamp(min=1e-12), high], 1)
