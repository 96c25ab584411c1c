"""Quick, Draw!: sketches of 344 everyday things, 25 drawings each.

J. Jongejan et al., "The Quick, Draw! - A.I. Experiment", 2016; made available by Google, Inc. under CC BY 4.0. An
extract of the first 25 drawings of each category, drawn anew at 28x28; the class split is that of learn2learn.
"""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from rbml.data import store
from rbml.data.augment import DRAWINGS
from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.inputs import Pictures
from rbml.errors import DataError

_PICTURES = "quickdraw/quickdraw_344x25_28x28.npz"
_SPLITS = "quickdraw/splits/learn2learn.json"
_KEYS = {"train": "train", "val": "validation", "test": "test"}
_ORIGIN = (
    "It cannot be downloaded by rbml: it was rendered from github.com/googlecreativelab/quickdraw-dataset (CC BY 4.0), "
    "first 25 drawings of 344 categories, with arrays images (N, 28, 28), labels and class_names."
)


def load(part: str, root: str | Path | None = None, *, split: str | None = None, seed: int = 0) -> Labelled:
    """Quick, Draw! sketches of 344 things (Jongejan et al., 2016), 25 drawings each.

    240/52/52 classes, split as in learn2learn. Found under the data root only, not downloaded.

    Returns:
        ``x`` ``(25 * C, 1, 28, 28)`` uint8.
    """
    check_part(part)
    check_split(split, "learn2learn")
    path = store.need(_PICTURES, root, _ORIGIN)
    chosen = _chosen(store.need(_SPLITS, root, _ORIGIN), part)
    images, labels, known = _arrays(path)
    names = [name for name in known if name in chosen]
    rows = [np.flatnonzero(labels == known.index(name)) for name in names]
    y = torch.arange(len(names)).repeat_interleave(torch.tensor([len(one) for one in rows]))
    x = torch.from_numpy(images[np.concatenate(rows)])[:, None]
    origin = f"Quick, Draw! (first 25 drawings), split learn2learn, part {part}"
    about = f"{origin}: {len(names)} classes, {len(x)} drawings, 28x28; {path}"
    return Labelled(x, y, names, about, Pictures(), DRAWINGS)


def _chosen(path: Path, part: str) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))[_KEYS[part]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a class split: {error!r}.") from None


def _arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return file["images"], file["labels"].astype(np.int64), [str(name) for name in file["class_names"]]
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}.") from None
