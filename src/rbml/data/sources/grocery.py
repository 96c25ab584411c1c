"""Photographs of groceries, made with a telephone in shops.

M. Klasson, C. Zhang, H. Kjellström, "A Hierarchical Grocery Store Image Dataset with Visual and Semantic Labels", WACV
2019 (MIT), scaled to 84x84.
"""

from __future__ import annotations

import csv
import json
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from rbml.data import store
from rbml.data.augment import PHOTOGRAPHS
from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.extras import require
from rbml.data.inputs import Pictures
from rbml.data.inputs.pictures import from_image
from rbml.errors import DataError

_ZIP, _LIST, _SPLIT = "grocery_store_84x84.zip", "images.csv", "splits/suggested.json"
_ORIGIN = (
    "rbml does not download it: put the pictures (zipped), their list and the split into the folder grocery_store/."
)

PROTOCOL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"size": 84, "channels": 3, "queries": 10}),
]
"""What differs from a recipe's defaults, and in which cases."""


def load(
    part: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    size: int = 84,
    channels: int = 3,
) -> Labelled:
    """Photographs of 81 kinds of fruit, vegetables and cartons (Klasson et al., 2019).

    Found under the data root only (``grocery_store/``), not downloaded. 35 to 143 photographs of each kind, with 84x84
    pixels.

    Splits:
        ``suggested``: 48/16/17 classes; similar classes (all apples, for example) are in the same part.

    Returns:
        ``x`` ``(3127, channels, size, size)`` uint8 for train, 888 for val, 1406 for test.

    Raises:
        UsageError: for a part or a split that does not exist, or if Pillow is not installed.
        DataError: if the files are not there, or cannot be read.
    """
    check_part(part)
    check_split(split, "suggested")
    path = store.need(f"grocery_store/{_ZIP}", root, _ORIGIN)
    rows = _rows(store.need(f"grocery_store/{_LIST}", root, _ORIGIN))
    names = _names(store.need(f"grocery_store/{_SPLIT}", root, _ORIGIN), part)
    arrays = store.cached_arrays(f"grocery-1-{store.stamp(path)}", lambda: {"pictures": _decoded(path, rows)})
    image = require("PIL.Image", "images", "reading pictures")
    chosen = [(place, names.index(name)) for place, (_, name) in enumerate(rows) if name in names]
    chosen.sort(key=lambda pair: pair[1])
    x = torch.stack([from_image(image.fromarray(arrays["pictures"][place]), size, channels) for place, _ in chosen])
    y = torch.tensor([label for _, label in chosen])
    about = f"Grocery Store, split suggested, part {part}: {len(names)} classes, {len(x)} photographs, {size}x{size}"
    return Labelled(x, y, names, f"{about}; {path}", Pictures(size, channels), PHOTOGRAPHS)


def _rows(path: Path) -> list[tuple[str, str]]:
    """Return the path inside the archive, and the class, of every picture."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [(row["path"], row["class"]) for row in csv.DictReader(file)]
    except (OSError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error!r}. It needs the columns path and class.") from None


def _names(path: Path, part: str) -> list[str]:
    """Return the classes of a part, sorted."""
    try:
        return sorted(json.loads(path.read_text(encoding="utf-8"))[part])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error!r}. It needs a list of classes for {part}.") from None


def _decoded(path: Path, rows: list[tuple[str, str]]) -> NDArray[np.uint8]:
    """Return all pictures ``(5421, 84, 84, 3)``, in the order of the list."""
    image = require("PIL.Image", "images", "reading pictures")
    try:
        with ZipFile(path) as archive:
            found = [
                np.asarray(image.open(BytesIO(archive.read(f"grocery_store_84x84/{name}"))).convert("RGB"))
                for name, _ in rows
            ]
    except (OSError, BadZipFile, EOFError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}. Get it again.") from None
    return np.stack(found)
