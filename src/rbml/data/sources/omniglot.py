"""Omniglot: 1623 handwritten characters of 50 alphabets, each drawn once by 20 people.

B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum, "Human-level concept learning through probabilistic program induction",
Science 350(6266):1332-1338, 2015. Pictures from github.com/brendenlake/omniglot (MIT); lists of the Vinyals split from
github.com/jakesnell/prototypical-networks (MIT).
"""

from __future__ import annotations

from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbml.data import store
from rbml.data.augment import DRAWINGS
from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.extras import require
from rbml.data.inputs import Pictures
from rbml.errors import DataError

SPLITS = ("vinyals", "vinyals-1200", "lake", "lake-within", "antoniou")

PROTOCOL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"split": "vinyals"}),
    ({"ways": [20], "algorithm": ["maml", "fomaml"]}, {"lr": 0.1, "steps": 5, "tasks": 16}),
    ({"split": ["antoniou"]}, {"queries": 1, "task_options": {"turn_classes": True}}),
    ({"split": ["lake-within"]}, {"ways": 20, "queries": 1, "task_options": {"within": True}}),
    ({"algorithm": ["oml", "anml"]}, {
        "split": "lake", "task": "continual", "ways": 15, "shots": 6, "queries": 2, "steps": 90, "tasks": 4, "lr": 0.1,
        "task_options": {"remember": 30, "labels": "global"}, "validate_tasks": 16,
    }),
    ({"algorithm": ["streaming_lda"]}, {"split": "lake", "ways": 40, "shots": 5, "queries": 5, "tasks": 2}),
    ({"algorithm": ["oml", "anml", "streaming_lda"], "model": ["conv4"]}, {"norm": "group"}),
    ({"algorithm": ["oml"], "model": ["conv4"]}, {"lr": 1.0, "options": {"cosine": True}}),
    ({"algorithm": ["oml"], "model": ["oml"]}, {
        "size": 84, "ways": 3, "shots": 5, "queries": 5, "steps": 15, "tasks": 1, "lr": 0.03, "outer_lr": 1e-4,
        "meta_steps": 15000, "task_options": {"remember": 15, "labels": "global"},
    }),
    ({"algorithm": ["anml"], "model": ["anml"]}, {
        "ways": 3, "shots": 5, "queries": 5, "steps": 15, "tasks": 1, "lr": 0.1, "outer_lr": 1e-3,
        "meta_steps": 20000, "task_options": {"remember": 64, "labels": "global"},
    }),
]  # fmt: skip
"""What differs from a recipe's defaults, and in which cases: Finn et al. 2017 (arXiv:1703.03400, appendix A.1) for
MAML; streams of classes without batch norm, because a step sees a single drawing; for OML with Conv4 the head that knew
most of the validation classes (docs/results.md). With the networks of OML and ANML, the settings of their code: three
classes of five drawings and fifteen to remember (Javed and White 2019); for ANML 64 to remember, where Beaulieu et al.
2020 have a single class, on which a run could not be validated."""

_DRAWINGS, _SIZE = 20, 28
_LEAST = {"lake": 0, "lake-within": 20}
_ROTATIONS = ("rot000", "rot090", "rot180", "rot270")  # counterclockwise, as in the published lists' own loader

_ZIP_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/images_{}.zip"
_ZIPS = {  # characters, and the checksum of the official file
    "background": (964, "md5:68d2efa1b9178cc56df9314c21c6e718"),
    "evaluation": (659, "md5:6b91aef0f799c5bb55b94e3f2daec811"),
}
_LIST_URL = (
    "https://raw.githubusercontent.com/jakesnell/prototypical-networks/master/data/omniglot/splits/vinyals/{}.txt"
)
_LISTS = {  # of commit c9bb4d258267: the checksums refuse any other
    "train": "sha256:984522c194c30fb678ce53304a160a42faf5403ad4f9a67010f32dd3a35738e0",
    "val": "sha256:11f99e54faee3e26f53d3231c1cceac5bf7b8730e9be31cb6dab256551dc0c1a",
    "test": "sha256:845264cc5c156180828ccf17915668b17ee21424d0170df6e7d81676aa5d1204",
}


def load(part: str, root: str | Path | None = None, *, split: str | None = None, seed: int = 0) -> Labelled:
    """Handwritten characters of 50 alphabets (Lake et al., 2015), 20 drawings each.

    Splits:
        ``vinyals`` (the usual one): 4112/688/1692 classes; each character also rotated by 90, 180 and 270 degrees, each
        rotation counting as a class (Vinyals et al., 2016; validation classes as in Snell et al., 2017).
        ``vinyals-1200``: train is train and val together, 4800 classes; val is a part of train. For a final run with
        settings that were chosen before, and for comparison with work that trains on 1200 characters.
        ``lake``: 883/81/659 characters without rotations; test is the evaluation set of Lake et al., val the 5
        alphabets with the fewest characters of their background set, train the rest (Triantafillou et al., 2020).
        ``lake-within``: the same, with the classes of a task from one alphabet, as in the one-shot test of Lake et al.
        with 20 ways; val is the 5 smallest background alphabets of at least 20 characters. Their test draws a task's
        support set and its queries from one person each, and here every drawing is of anyone.
        ``antoniou``: 1150/50/423 of all characters, shuffled; characters are not turned, but in training each class of
        a task is turned at random; one query per class (Antoniou et al., 2019, MAML++).

    Returns:
        ``x`` ``(20 * C, 1, 28, 28)`` uint8, from 105x105 (Lanczos); names are ``Alphabet/characterNN/rotRRR``.
    """
    check_part(part)
    split = check_split(split, *SPLITS)
    paths = {archive: _archive(archive, root) for archive in _ZIPS}
    pictures, index = _characters(paths)
    names = _names(part, split, index, root)
    x = torch.stack([_drawings(name, pictures, index) for name in names]).flatten(0, 1)
    y = torch.arange(len(names)).repeat_interleave(_DRAWINGS)
    return Labelled(x, y, names, _about(part, split, len(names), paths["background"].parent), Pictures(_SIZE), DRAWINGS)


def _about(part: str, split: str, classes: int, folder: Path) -> str:
    turned = ", rotations by 90 degrees counted as classes" if split.startswith("vinyals") else ""
    shared = " (val is a part of train)" if split == "vinyals-1200" and part != "test" else ""
    origin = f"Omniglot, split {split}, part {part}{shared}"
    return f"{origin}: {classes} classes x {_DRAWINGS} drawings, 28x28{turned}; {folder}"


def _archive(archive: str, root: str | Path | None) -> Path:
    """Return the path of a picture archive: under the data root, else downloaded."""
    name = f"images_{archive}.zip"
    path = store.find(f"omniglot/{name}", root) or store.find(name, root)
    if path is not None:
        return path
    if root is not None:  # whoever says where the data is wants that data, not a download
        raise store.missing(f"omniglot/{name}", root, "Without a data root, rbml downloads it.")
    return store.fetch(f"omniglot/{name}", _ZIP_URL.format(archive), _ZIPS[archive][1])


def _names(part: str, split: str, index: dict[str, int], root: str | Path | None) -> list[str]:
    """Return the classes ``Alphabet/characterNN/rotRRR`` of a part; ``index`` has the background set first."""
    if split.startswith("vinyals"):
        return _vinyals(part, split, root)
    characters = _shuffled(part, list(index)) if split == "antoniou" else _lake(part, index, _LEAST[split])
    return [f"{character}/{_ROTATIONS[0]}" for character in characters]


def _shuffled(part: str, characters: list[str]) -> list[str]:
    order = torch.randperm(len(characters), generator=torch.Generator().manual_seed(0)).tolist()
    places = {"train": order[:1150], "val": order[1150:1200], "test": order[1200:]}[part]
    return [characters[place] for place in sorted(places)]


def _vinyals(part: str, split: str, root: str | Path | None) -> list[str]:
    lists = ("train", "val") if (part, split) == ("train", "vinyals-1200") else (part,)
    return [name for one in lists for name in _list(one, root)]


def _list(part: str, root: str | Path | None) -> list[str]:
    name = f"splits/vinyals/{part}.txt"
    path = store.find(f"omniglot/{name}", root) or store.find(name, root)
    if path is None:  # the lists do not come with the official archives
        path = store.fetch(f"omniglot/{name}", _LIST_URL.format(part), _LISTS[part])
    return path.read_text(encoding="utf-8").split()


def _lake(part: str, index: dict[str, int], least: int) -> list[str]:
    """Return the characters of a part; validation alphabets have at least so many."""
    characters, cut = list(index), _ZIPS["background"][0]
    background, evaluation = characters[:cut], characters[cut:]
    sizes = Counter(_alphabet(character) for character in background)
    enough = [alphabet for alphabet, size in sizes.items() if size >= least]
    smallest = sorted(enough, key=lambda alphabet: (sizes[alphabet], alphabet))[:5]
    if part == "test":
        return evaluation
    return [character for character in background if (_alphabet(character) in smallest) == (part == "val")]


def _alphabet(character: str) -> str:
    return character.partition("/")[0]


def _drawings(name: str, pictures: Tensor, index: dict[str, int]) -> Tensor:
    """Return the drawings ``(20, 1, 28, 28)`` of a class ``Alphabet/characterNN/rotRRR``."""
    character, _, rotation = name.rpartition("/")
    if character not in index or rotation not in _ROTATIONS:
        raise DataError(f"the class list of Omniglot names {name!r}, which its archives do not have: get it again.")
    return pictures[index[character]].rot90(_ROTATIONS.index(rotation), (-2, -1))


def _characters(paths: dict[str, Path]) -> tuple[Tensor, dict[str, int]]:
    """Return all drawings ``(1623, 20, 1, 28, 28)``, background first, and the row of each ``Alphabet/characterNN``."""
    arrays = store.cached_arrays(f"omniglot-1-{store.stamp(*paths.values())}", lambda: _decode(paths))
    names = [str(name) for name in arrays["names"]]
    return torch.from_numpy(arrays["pictures"]), {name: row for row, name in enumerate(names)}


def _decode(paths: dict[str, Path]) -> dict[str, NDArray[np.generic]]:
    pictures, names = [], []
    for archive, path in paths.items():
        for name, drawings in _read(path, _ZIPS[archive][0]).items():
            names.append(name)
            pictures.append(drawings)
    return {"pictures": np.stack(pictures)[:, :, None], "names": np.array(names)}


def _read(path: Path, expected: int) -> dict[str, NDArray[np.uint8]]:
    """Return the drawings ``(20, 28, 28)`` of every character of an archive, ink bright, characters sorted by name.

    Raises:
        DataError: for an archive that cannot be read, or is incomplete. Its checksum is not tested, because a copy
            that was zipped again is just as good.
    """
    image = require("PIL.Image", "images", "reading Omniglot")
    members: dict[str, list[str]] = {}
    try:
        with ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".png") and "/." not in name:  # macOS adds "._name.png"
                    members.setdefault("/".join(name.split("/")[-3:-1]), []).append(name)
            _check(path, members, expected)
            return {
                character: np.stack([_picture(image, archive.read(name)) for name in names])
                for character, names in members.items()
            }
    except (OSError, BadZipFile, EOFError) as error:  # Pillow's errors are OSErrors
        raise DataError(f"{path} cannot be read: {error}. Delete it, and get it again.") from None


def _check(path: Path, members: dict[str, list[str]], expected: int) -> None:
    pictures = sum(map(len, members.values()))
    if len(members) != expected or any(len(names) != _DRAWINGS for names in members.values()):
        raise DataError(
            f"{path} holds {pictures} drawings of {len(members)} characters, where Omniglot has {expected} characters "
            f"with {_DRAWINGS} drawings each: delete it, and get it again."
        )


def _picture(image: Any, content: bytes) -> NDArray[np.uint8]:
    picture = image.open(BytesIO(content), formats=["PNG"]).convert("L")
    small = picture.resize((_SIZE, _SIZE), image.Resampling.LANCZOS)
    return 255 - np.asarray(small, dtype=np.uint8)
