"""Pictures of your own: a folder with one folder per class, or without labels one pile of pictures."""

from __future__ import annotations

import logging
import zlib
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rbml.data import mapped, store
from rbml.data.augment import DRAWINGS, PHOTOGRAPHS
from rbml.data.examples import PARTS, Labelled, check_part, check_split
from rbml.data.inputs import Pictures
from rbml.data.inputs.class_folders import class_files, class_folders, visible
from rbml.errors import DataError, UsageError

_FEWEST = 5
_SMALLEST_PILE = 20
_NO_PICTURES = (".txt", ".md", ".csv", ".json", ".xml", ".html", ".pdf", ".doc", ".docx", ".py", ".zip")

_log = logging.getLogger(__name__)


def load(
    part: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    size: int = 28,
    channels: int = 1,
    labelled: bool = True,
) -> Labelled:
    """Pictures of your own, one folder per class: folder:PATH.

    If the folder has nothing but ``train``, ``val`` and ``test``, each with class folders, that division is used.
    Otherwise the classes are shuffled with ``seed`` and divided 64 : 16 : 20.

    For learning without labels, it may also be one pile: pictures in the folder itself and in folders below it, whose
    names mean nothing. A tenth of them, drawn with ``seed``, is for validation; there is no test part. With 5 or more
    folders, these are taken for classes: their labels are not used, but training and test classes are kept apart.

    Returns:
        ``x`` ``(N, channels, size, size)`` uint8; names are those of the class folders.

    Raises:
        UsageError: for a part or a split that does not exist, or if no folder is given.
        DataError: if the folder cannot be used, or has too few classes to divide.
    """
    check_part(part)
    check_split(split, "classes")
    if root is None:
        raise UsageError("the source folder needs a path: folder:PATH.")
    directory = Path(root).expanduser()
    if not labelled and is_pile(directory):
        return _pile(directory, part, seed, Pictures(size, channels))
    if labelled and not any(path.is_dir() for path in visible(directory)):
        raise DataError(
            f"{str(directory)!r} has no class folders. Expected a folder of class folders with pictures in them "
            "(CLASS/picture.png). To learn from pictures without labels: --labels none"
        )
    parts = divided(directory)
    if parts:
        chosen, how = _own(directory, parts, part), "its own division"
    else:
        chosen, how = _drawn(directory, class_folders(directory), part, seed), f"classes shuffled with seed {seed}"
    origin = f"pictures of {directory.resolve()}, part {part} ({how})"
    return _labelled(directory, part, chosen, Pictures(size, channels), origin)


def read_classes(directory: str | Path, size: int = 28, channels: int = 1) -> Labelled:
    """Read all classes of a folder: one folder per class, in the order of their names.

    Hidden files are skipped, and so are files beside the class folders.

    Returns:
        ``x`` ``(N, channels, size, size)`` uint8; see :func:`rbml.data.inputs.pictures.read`.

    Raises:
        DataError: if the folder is missing or has no class folders, if a class folder is empty or contains folders, or
            if files are not pictures; they are named.
    """
    directory = Path(directory).expanduser()
    folders = class_folders(directory)
    return _labelled(directory, "all", folders, Pictures(size, channels), f"pictures of {directory.resolve()}")


def is_pile(directory: Path) -> bool:
    """Return whether a folder is a pile of pictures: it has too few folders to be classes, and no parts."""
    folders = [path for path in visible(directory) if path.is_dir()]
    return len(folders) < _FEWEST and not (folders and divided(directory))


def _pile(directory: Path, part: str, seed: int, modality: Pictures) -> Labelled:
    """Return the pictures of a part of a pile, as if all were of one class."""
    if part == "test":
        raise UsageError(
            f"{str(directory)!r} is a pile of pictures without labels, on which nothing can be tested: name a folder "
            "with one folder per class, --tasks folder:PATH"
        )
    files, others = pile_files(directory)
    if others:
        _log.warning("%s: skipped, because they are no pictures: %s", directory, _few([path.name for path in others]))
    if len(files) < _SMALLEST_PILE:
        raise DataError(
            f"{str(directory)!r} has {len(files)} pictures, but at least {_SMALLEST_PILE} are needed to learn from "
            "pictures without labels: add pictures."
        )
    order = np.random.default_rng(seed).permutation(len(files))
    held_out = max(_SMALLEST_PILE // 2, round(0.1 * len(files)))
    chosen = sorted(order[:held_out] if part == "val" else order[held_out:])
    x = _pictures(directory, part, [files[row] for row in chosen], modality)
    origin = f"pictures of {directory.resolve()}, part {part} (a tenth, drawn with seed {seed}, is val)"
    about = f"{origin}: {len(x)} pictures without labels, {modality.size}x{modality.size}"
    return Labelled(x, torch.zeros(len(x), dtype=torch.int64), ["picture"], about, modality, _usual(modality))


def pile_files(directory: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures of a pile, folders below it included, and the other files; sorted, without hidden files."""
    found: list[Path] = []
    for path in visible(directory):
        found += chain(*pile_files(path)) if path.is_dir() else [path]
    pictures = [path for path in found if path.suffix.lower() not in _NO_PICTURES]
    return pictures, [path for path in found if path.suffix.lower() in _NO_PICTURES]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


def _usual(modality: Pictures) -> tuple[str, ...]:
    return PHOTOGRAPHS if modality.channels == 3 else DRAWINGS


def _labelled(directory: Path, part: str, folders: list[Path], modality: Pictures, origin: str) -> Labelled:
    files = [(label, path) for label, folder in enumerate(folders) for path in class_files(folder)]
    x, y = (
        _pictures(directory, part, [path for _, path in files], modality),
        torch.tensor([label for label, _ in files]),
    )
    about = f"{origin}: {len(folders)} classes, {len(x)} pictures, {modality.size}x{modality.size}"
    return Labelled(x, y, [folder.name for folder in folders], about, modality, _usual(modality))


def _pictures(directory: Path, part: str, files: list[Path], modality: Pictures) -> Tensor:
    """Return the pictures of files, ``(N, channels, size, size)``; many are read once, and kept in the cache folder."""
    if len(files) < mapped.FROM:
        return modality.read(files)
    place = zlib.crc32(str(directory.resolve()).encode())
    name = f"folder-1-{place:08x}-{part}-{modality.size}-{modality.channels}"
    shape = (modality.channels, modality.size, modality.size)
    return mapped.kept(
        name, store.stamp(*files), len(files), shape, lambda start, stop: modality.read(files[start:stop])
    )


def divided(directory: Path) -> list[str]:
    """Return which of train, val and test a folder is divided into; nothing if its folders are the classes."""
    folders = class_folders(directory)
    if any(folder.name not in PARTS for folder in folders):
        return []
    if not all(any(path.is_dir() for path in visible(folder)) for folder in folders):
        return []
    return [folder.name for folder in folders]


def _own(directory: Path, parts: list[str], part: str) -> list[Path]:
    if part not in parts:
        raise DataError(f"{str(directory)!r} is divided into {', '.join(parts)}, but has no {part!r}: add that folder.")
    chosen = class_folders(directory / part)
    names = {folder.name for folder in chosen}
    for other in parts:
        shared = names & {folder.name for folder in class_folders(directory / other)} if other != part else set()
        if shared:
            raise DataError(
                f"class {min(shared)!r} is in {str(directory / part)!r} and in {str(directory / other)!r}: "
                "a learner is tested on classes that it was not trained on. Keep each class in one part only."
            )
    return chosen


def _drawn(directory: Path, folders: list[Path], part: str, seed: int) -> list[Path]:
    if len(folders) < _FEWEST:
        raise DataError(
            f"{str(directory)!r} has {len(folders)} classes, but at least {_FEWEST} are needed to divide them into "
            "train, val and test: add classes. To learn from pictures without labels: --labels none"
        )
    val, test = max(1, round(0.16 * len(folders))), max(1, round(0.2 * len(folders)))
    order = np.random.default_rng(seed).permutation(len(folders))
    rows = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}[part]
    return [folders[row] for row in sorted(rows)]
