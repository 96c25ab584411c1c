"""Folders with one folder per class: their files, and clear errors if they cannot be used."""

from __future__ import annotations

from pathlib import Path

from rbml.errors import DataError

_LAYOUT = "Expected a folder of class folders with pictures in them (CLASS/picture.png)"
_LITTER = ("thumbs.db", "desktop.ini")  # what Windows leaves behind in folders of pictures


def visible(directory: Path) -> list[Path]:
    """Return what is in a folder, sorted by name, without hidden files.

    Raises:
        DataError: if there is no such folder.
    """
    if not directory.is_dir():
        state = "is not a folder" if directory.exists() else "does not exist"
        raise DataError(f"{str(directory)!r} {state}. {_LAYOUT}.")
    kept = (path for path in directory.iterdir() if not path.name.startswith(".") and path.name.lower() not in _LITTER)
    return sorted(kept, key=lambda path: path.name)


def class_folders(directory: Path) -> list[Path]:
    """Return the class folders of a folder, sorted by name; files beside them are skipped.

    Raises:
        DataError: if the folder is missing or has no class folders.
    """
    folders = [path for path in visible(directory) if path.is_dir()]
    if not folders:
        raise DataError(f"{str(directory)!r} has no class folders. {_LAYOUT}.")
    return folders


def class_files(folder: Path) -> list[Path]:
    """Return the files of a class folder, sorted by name.

    Raises:
        DataError: if it is empty or contains folders.
    """
    files = visible(folder)
    inner = next((path for path in files if path.is_dir()), None)
    if inner is not None:
        raise DataError(f"the class folder {str(folder)!r} holds the folder {inner.name!r}. {_LAYOUT}.")
    if not files:
        raise DataError(f"the class folder {str(folder)!r} is empty. {_LAYOUT}.")
    return files
