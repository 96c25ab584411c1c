"""Glyphs: invented characters like those of Omniglot, drawn from a seed. They need no file and no download."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rbml.data import store
from rbml.data.augment import DRAWINGS
from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.inputs import Pictures
from rbml.data.sources import raster, strokes

CLASSES = {"train": range(0, 1200), "val": range(1200, 1300), "test": range(1300, 1600)}

_DRAWINGS = 20
_VERSION = 1  # of the characters: increase it with any change to how they look


def load(part: str, root: str | Path | None = None, *, split: str | None = None, seed: int = 0) -> Labelled:
    """Invented characters, drawn from a seed; needs no download. The default.

    1200 classes to learn from, 100 for validation, 300 for testing, with 20 drawings each; ``seed`` is the alphabet.

    Returns:
        ``x`` ``(20 * C, 1, 28, 28)`` uint8; names are ``glyph 0000`` and so on.
    """
    check_part(part)
    check_split(split, "classes")
    classes = CLASSES[part]
    key = f"glyphs-{_VERSION}-{seed}-{part}"
    arrays = store.cached_arrays(key, lambda: {"pictures": render(seed, classes).numpy()})
    x = torch.from_numpy(arrays["pictures"]).flatten(0, 1)
    y = torch.arange(len(classes)).repeat_interleave(_DRAWINGS)
    origin = f"glyphs of seed {seed} (version {_VERSION}), part {part}"
    about = f"{origin}: {len(classes)} invented characters x {_DRAWINGS} drawings, 28x28"
    return Labelled(x, y, [f"glyph {index:04d}" for index in classes], about, Pictures(), DRAWINGS)


def render(seed: int, classes: Sequence[int], drawings: int = _DRAWINGS) -> Tensor:
    """Draw the given classes of the alphabet of ``seed``: class i looks the same whichever others are asked for.

    Returns:
        ``(C, drawings, 1, 28, 28)`` uint8, bright ink on 0.
    """
    drawn = [_curves(seed, index, drawings) for index in classes]
    pictures = torch.empty(len(drawn), drawings, 1, 28, 28, dtype=torch.uint8)
    order = sorted(range(len(drawn)), key=lambda row: drawn[row][0].shape[1])
    for _, group in groupby(order, key=lambda row: drawn[row][0].shape[1]):  # one shape per number of strokes
        rows = list(group)
        curves, radius, softness = (torch.cat(parts) for parts in zip(*(drawn[row] for row in rows), strict=True))
        pictures[rows] = raster.ink(curves, radius, softness).view(len(rows), drawings, 1, 28, 28)
    return pictures


def _curves(seed: int, index: int, drawings: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return curves ``(D, S, L, 2)``, pen radius ``(D,)`` and softness ``(D,)`` of a class, in pixels."""
    character = strokes.invent(np.random.default_rng((seed, index, 0)))
    rng = np.random.default_rng((seed, index, 1))
    curves = strokes.draw(character, rng, drawings)
    radius = np.clip(np.exp(rng.normal(np.log(0.75), 0.3, drawings)), 0.6, 1.9)
    softness = rng.uniform(0.8, 1.2, drawings)
    return _float(curves), _float(radius), _float(softness)


def _float(array: strokes.Floats) -> Tensor:
    return torch.from_numpy(array).float()
