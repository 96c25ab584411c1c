"""Pictures of your own: a folder with one folder per class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rbml.data.augment import DRAWINGS, PHOTOGRAPHS
from rbml.data.examples import PARTS, Labelled, check_part, check_split
from rbml.data.inputs import Pictures
from rbml.data.inputs.class_folders import class_files, class_folders, visible
from rbml.errors import DataError, UsageError

_FEWEST = 5


def load(
    part: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    size: int = 28,
    channels: int = 1,
) -> Labelled:
    """Pictures of your own, one folder per class: folder:PATH.

    If the folder has nothing but ``train``, ``val`` and ``test``, each with class folders, that division is used.
    Otherwise the classes are shuffled with ``seed`` and divided 64 : 16 : 20.

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
    parts = divided(directory)
    if parts:
        chosen, how = _own(directory, parts, part), "its own division"
    else:
        chosen, how = _drawn(directory, class_folders(directory), part, seed), f"classes shuffled with seed {seed}"
    return _labelled(chosen, Pictures(size, channels), f"pictures of {directory.resolve()}, part {part} ({how})")


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
    return _labelled(folders, Pictures(size, channels), f"pictures of {directory.resolve()}")


def _labelled(folders: list[Path], modality: Pictures, origin: str) -> Labelled:
    x, y = _read(folders, modality)
    about = f"{origin}: {len(folders)} classes, {len(x)} pictures, {modality.size}x{modality.size}"
    usual = PHOTOGRAPHS if modality.channels == 3 else DRAWINGS
    return Labelled(x, y, [folder.name for folder in folders], about, modality, usual)


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
            "train, val and test: add classes."
        )
    val, test = max(1, round(0.16 * len(folders))), max(1, round(0.2 * len(folders)))
    order = np.random.default_rng(seed).permutation(len(folders))
    rows = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}[part]
    return [folders[row] for row in sorted(rows)]


def _read(folders: list[Path], modality: Pictures) -> tuple[Tensor, Tensor]:
    """Return the pictures ``(N, channels, size, size)`` of class folders, and their classes ``(N,)``."""
    files = [(label, path) for label, folder in enumerate(folders) for path in class_files(folder)]
    return modality.read([path for _, path in files]), torch.tensor([label for label, _ in files])
