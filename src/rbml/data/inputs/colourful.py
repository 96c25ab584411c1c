"""Whether pictures have colours, found by looking at some of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rbml.data.extras import require
from rbml.data.inputs.class_folders import visible

_LOOKED_AT, _SIDE = 24, 32
_CHROMA = 24
"""The largest minus the smallest of red, green and blue that counts as a colour; JPEG gives grey pictures a few."""


def colourful(directory: Path) -> bool:
    """Return whether most pictures of a folder, or of the folders in it, have colours; some of them are looked at.

    Files that are no pictures are passed over: they are named when the pictures are read.

    Args:
        directory: the folder.

    Raises:
        DataError: if there is no such folder.
        UsageError: if Pillow is not installed.
    """
    files = _files(directory)
    step = max(1, len(files) // _LOOKED_AT)
    found = [one for one in map(_has_colour, files[::step]) if one is not None]
    return sum(found) * 2 > len(found)


def _files(directory: Path) -> list[Path]:
    found = []
    for path in visible(directory):
        found += _files(path) if path.is_dir() else [path]
    return found


def _has_colour(path: Path) -> bool | None:
    image = require("PIL.Image", "images", "reading pictures")
    try:
        with image.open(path) as picture:
            picture.draft("RGB", (_SIDE, _SIDE))  # JPEG is decoded small, which is much faster
            small = np.asarray(picture.convert("RGB").resize((_SIDE, _SIDE)), np.int16)
    except Exception:  # decoders raise anything
        return None
    chroma = small.max(-1) - small.min(-1)
    return bool(np.percentile(chroma, 95) > _CHROMA)
