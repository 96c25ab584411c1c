"""Digits: real handwriting that comes with scikit-learn, so that it needs no download.

E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (CC BY 4.0):
the 1797 pictures of its test part, 8x8 in 17 grey levels.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from rbml.data.augment import DRAWINGS
from rbml.data.examples import Labelled, check_split, check_test_only
from rbml.data.extras import require
from rbml.data.inputs import Pictures

_INNER, _SIZE = 20, 28


def load(part: str, root: str | Path | None = None, *, split: str | None = None, seed: int = 0) -> Labelled:
    """Real handwritten digits, 10 classes (UCI, in scikit-learn): for testing only.

    The 8x8 pictures are enlarged smoothly to 20x20, their strokes made as crisp as those of the other sources, and put
    in the middle of 28x28.

    Returns:
        ``x`` ``(1797, 1, 28, 28)`` uint8, 174 to 183 pictures per class, in scikit-learn's order; names ``0`` to ``9``.
    """
    check_test_only(part, "digits", 10)
    check_split(split, "digits")
    datasets = require("sklearn.datasets", "sklearn", "the digits data set")
    pictures, labels = datasets.load_digits(return_X_y=True)
    x = enlarge(torch.from_numpy(pictures).float().view(-1, 1, 8, 8) / 16)
    about = f"digits of scikit-learn (UCI, test part), part test: 10 classes, {len(x)} pictures, 28x28"
    names = [str(digit) for digit in range(10)]
    return Labelled(x, torch.from_numpy(labels).long(), names, about, Pictures(_SIZE), DRAWINGS)


def enlarge(pictures: Tensor) -> Tensor:
    """Return ``(N, 1, 8, 8)`` pictures in ``0 .. 1`` as ``(N, 1, 28, 28)`` uint8 with crisp strokes."""
    smooth = interpolate(pictures, size=(_INNER, _INNER), mode="bicubic", align_corners=False)
    # A stroke of one coarse pixel is now a hill: cutting it at half height gives back a stroke with soft edges.
    crisp = ((smooth - 0.4) / 0.4).clamp(0, 1)
    return (pad(crisp, [(_SIZE - _INNER) // 2] * 4) * 255).round().to(torch.uint8)
