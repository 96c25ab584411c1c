"""Pictures in folders, with one folder per class or without, and in lists; clear errors if they cannot be used."""

from __future__ import annotations

from pathlib import Path

from rbml.errors import DataError

_LAYOUT = "Expected a folder of class folders with pictures in them (CLASS/picture.png)"
_LITTER = ("thumbs.db", "desktop.ini")  # what Windows leaves behind in folders of pictures
_OTHER = {
    f".{ending}"
    for endings in (
        "txt md rst rtf log csv tsv json jsonl xml yaml yml toml ini html htm pdf doc docx odt xls xlsx ods",
        "zip gz tar 7z rar db py ipynb mp3 wav m4a mp4 mov avi mkv aae thm",
    )
    for ending in endings.split()
}
"""Endings of files that lie beside pictures. Anything else is taken for a picture, so that a broken one is named."""


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
    """Return the files of a class folder, sorted by name, without those that are certainly no pictures.

    Raises:
        DataError: if there are none, or if it contains folders.
    """
    files = visible(folder)
    inner = next((path for path in files if path.is_dir()), None)
    if inner is not None:
        raise DataError(f"the class folder {str(folder)!r} holds the folder {inner.name!r}. {_LAYOUT}.")
    if not files:
        raise DataError(f"the class folder {str(folder)!r} is empty. {_LAYOUT}.")
    kept = [path for path in files if not is_other(path)]
    if not kept:
        raise DataError(f"the class folder {str(folder)!r} has no pictures, only {files[0].name!r}. {_LAYOUT}.")
    return kept


def is_other(path: Path) -> bool:
    """Return whether the name of a file says that it is no picture: notes, a table, an archive, a film.

    >>> is_other(Path("notes.txt")), is_other(Path("apple.JPG")), is_other(Path("IMG_1"))
    (True, False, False)
    """
    return path.suffix.lower() in _OTHER


def left_aside(directory: Path) -> list[str]:
    """Return the files in a folder of class folders that are not read as pictures, by their paths."""
    folders = class_folders(directory)
    beside = [path for path in visible(directory) if not path.is_dir()]
    return [str(path) for path in beside + [one for folder in folders for one in visible(folder) if is_other(one)]]


def pictures_at(place: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures that a place means, and the files that were left aside.

    Args:
        place: a picture; a folder, which means all pictures in it and in its folders; or a list: a text file with a
            path on each line, whose name ends with ``.txt`` or begins with ``@``. Paths in a list are relative to it.

    Raises:
        DataError: for a folder without pictures, or a list that cannot be read.
    """
    place = place.expanduser()
    if place.is_dir():
        files = sorted((path for path in place.rglob("*") if _is_shown(path, place)), key=str)
        kept = [path for path in files if not is_other(path)]
        if not kept:
            raise DataError(f"{str(place)!r} has no pictures: name a folder with pictures in it, or in its folders.")
        return kept, [path for path in files if is_other(path)]
    if place.name.startswith("@") or str(place).startswith("@") or place.suffix.lower() == ".txt":
        return _listed(Path(str(place).removeprefix("@"))), []
    return [place], []


def _is_shown(path: Path, top: Path) -> bool:
    parts = path.relative_to(top).parts
    return path.is_file() and not any(one.startswith(".") for one in parts) and path.name.lower() not in _LITTER


def _listed(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {str(file)!r} cannot be read ({error}): expected a path on each line.") from None
    found = [file.parent / Path(line.strip()).expanduser() for line in lines if line.strip()]
    if not found:
        raise DataError(f"the list {str(file)!r} is empty: expected a path on each line.")
    return found
