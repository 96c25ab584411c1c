"""Colour in pictures: whether they have any, and a histogram of it. Also how a picture file is opened."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbml.data.extras import require

BINS = (12, 4, 4)
"""Bins of hue, saturation and brightness."""

_SATURATED = 40  # of 255
_SHARE = 0.05  # of the pixels: a coloured stamp does not make a picture coloured


def opened(path: str | Path) -> Any:
    """Return an opened picture of Pillow; HEIC is read where pillow-heif is installed.

    Raises:
        UsageError: if Pillow is not installed.
        OSError: if the file is not there, or is not a picture.
    """
    _register_heic()
    return require("PIL.Image", "images", "reading pictures").open(path)


@cache
def _register_heic() -> None:
    """Teach Pillow to read HEIC, once."""
    if find_spec("pillow_heif") is not None:
        require("pillow_heif", "vision", "reading HEIC").register_heif_opener()


def is_coloured(path: str | Path) -> bool:
    """Return whether a picture has colour; ``False`` for what cannot be read, which others report."""
    try:
        with opened(path) as picture:
            if picture.mode in ("1", "L", "I", "F", "LA"):
                return False
            small = picture.convert("RGB").resize((32, 32)).convert("HSV")
    except Exception:  # decoders raise anything: OSError, SyntaxError, ValueError, struct.error ...
        return False
    return bool((np.asarray(small)[..., 1] > _SATURATED).mean() > _SHARE)


def colour_histogram(stored: Tensor) -> Tensor:
    """Return the shares of pixels in bins of hue, saturation and brightness.

    Args:
        stored: pictures ``(n, 3, height, width)`` uint8.

    Returns:
        ``(n, bins)``; each row adds up to one.

    >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
    >>> colour_histogram(red).argmax().item() == BINS[1] * BINS[2] - 1
    True
    """
    place = torch.zeros_like(stored[:, 0], dtype=torch.int64)
    for values, bins in zip(hsv(stored.float() / 255), BINS, strict=True):
        place = place * bins + (values * bins).long().clamp(0, bins - 1)
    total = BINS[0] * BINS[1] * BINS[2]
    ones = torch.ones_like(place, dtype=torch.float32).flatten(1)
    counts = ones.new_zeros(len(ones), total).scatter_add_(1, place.flatten(1), ones)
    return counts / ones.shape[1]


def hsv(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return hue, saturation and brightness in 0 .. 1, ``(n, h, w)`` each, of ``(n, 3, h, w)`` in 0 .. 1."""
    high, which = rgb.max(1)
    span = high - rgb.amin(1)
    safe = span.clamp(min=1e-6)
    red, green, blue = rgb.unbind(1)
    turns = torch.stack([(green - blue) / safe, 2 + (blue - red) / safe, 4 + (red - green) / safe])
    hue = turns.gather(0, which[None])[0].remainder(6) / 6
    return hue, span / high.clamp(min=1e-6), high
