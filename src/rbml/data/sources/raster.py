"""Draw curves as pictures.

Shapes: D drawings, S strokes, L points of a stroke; the last axis is (x, y) in pixels, y downwards.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 2**19  # how many numbers a work tensor holds: few enough for the cache of one core


def ink(curves: Tensor, radius: Tensor, softness: Tensor, size: int = 28) -> Tensor:
    """Draw the strokes with a round pen.

    The ink of a pixel falls linearly with the distance of its centre from the nearest piece of a stroke: full up to
    ``radius - softness / 2``, none from ``radius + softness / 2``. A drawing comes out the same, bit for bit, whichever
    drawings are drawn along with it: only element-wise operations are used, which round each number by itself.

    Args:
        curves: ``(D, S, L, 2)``, the points that straight pieces connect.
        radius: ``(D,)``, half the width of the pen, in pixels.
        softness: ``(D,)``, the width of its edge, in pixels.
        size: pixels per side.

    Returns:
        ``(D, 1, size, size)`` uint8, ink 255 on 0.
    """
    pieces = curves.shape[1] * (curves.shape[2] - 1)
    each = max(1, _CHUNK // (size * size * pieces))
    work = torch.empty(
        2, each, pieces, size, size
    )  # reused by all chunks: allocating it for each would take most of the time
    chunks = [slice(start, start + each) for start in range(0, len(curves), each)]
    return torch.cat([_ink(curves[chunk], radius[chunk], softness[chunk], work) for chunk in chunks])


def _ink(curves: Tensor, radius: Tensor, softness: Tensor, work: Tensor) -> Tensor:
    distance = _squared_distance(curves, work).sqrt_()
    edge = (radius + softness / 2)[:, None, None]
    level = (edge - distance).div_(softness[:, None, None]).clamp_(0, 1)
    return level.mul_(255).round_().to(torch.uint8)[:, None]


def _squared_distance(curves: Tensor, work: Tensor) -> Tensor:
    """Return ``(D, size, size)``: from each pixel's centre to the nearest of all pieces, P = S * (L - 1) of a drawing.

    With a piece from ``a``, unit direction ``u`` and length ``l``, and ``s = (p - a) . u`` clamped to ``[0, l]`` as
    ``c``: ``|p - a - c u|^2 = |p - a|^2 + c (c - 2 s)``. Both ``s`` and ``|p - a|^2`` are sums of a part in x and one
    in y. ``work`` is ``(2, D, P, size, size)`` or longer in D, to be overwritten.
    """
    start, end = (curves[:, :, part].flatten(1, 2)[..., None] for part in (slice(-1), slice(1, None)))
    piece = end - start  # (D, P, 2, 1), as start and end
    length = (piece * piece).sum(2, keepdim=True).sqrt()
    unit = piece / length.clamp_min(1e-6)
    offset = torch.arange(work.shape[-1]) + 0.5 - start
    s, c = work[:, : len(curves)]
    _add(offset * unit, s)
    torch.clamp(s, min=0, out=c)
    torch.minimum(c, length, out=c)
    s.mul_(-2).add_(c).mul_(c)
    _add(offset * offset, c)
    nearest: Tensor = s.add_(c).amin(1)
    return nearest.clamp_min_(0)


def _add(parts: Tensor, out: Tensor) -> None:
    """Add the part in x and the one in y, ``(D, P, 2, size)``, to ``(D, P, size, size)``: rows are y, columns x."""
    torch.add(parts[:, :, 1, :, None], parts[:, :, 0, None], out=out)
