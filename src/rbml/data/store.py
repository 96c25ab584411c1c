"""Find data on disk, download it if that is allowed, and keep decoded arrays for the next run.

Data is looked for under an explicit ``root``, else under ``$RBML_DATA``. Downloads and decoded arrays are kept in
``$RBML_CACHE``, else in the user's cache folder: ``$XDG_CACHE_HOME/rbml`` or ``~/.cache/rbml``.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rbml.data.extras import require
from rbml.errors import DataError

Arrays = dict[str, NDArray[np.generic]]

_log = logging.getLogger(__name__)


def root_of(root: str | Path | None) -> Path | None:
    """Return the folder in which data is looked for: ``root``, else ``$RBML_DATA``, else ``None``.

    Raises:
        DataError: if that folder does not exist.
    """
    chosen, origin = (root, "--data-root") if root is not None else (os.environ.get("RBML_DATA") or None, "$RBML_DATA")
    if chosen is None:
        return None
    folder = Path(chosen).expanduser()
    if not folder.is_dir():
        raise DataError(f"the data root {str(folder)!r} ({origin}) is not a folder: create it, or name another.")
    return folder


def find(relative: str, root: str | Path | None = None) -> Path | None:
    """Return the path of ``relative`` under the data root, or ``None`` if there is no root or no such file."""
    folder = root_of(root)
    if folder is None or not (folder / relative).exists():
        return None
    return folder / relative


def need(relative: str, root: str | Path | None, origin: str) -> Path:
    """Return the path of ``relative`` under the data root.

    Raises:
        DataError: if it is not there; the message includes ``origin``, which tells where to get it.
    """  # noqa: DOC501  `missing` returns the DataError
    path = find(relative, root)
    if path is None:
        raise missing(relative, root, origin)
    return path


def missing(relative: str, root: str | Path | None, origin: str) -> DataError:
    """Return the error for a file that is not under the data root: its name, where it was looked for, what to do."""
    folder = root_of(root)
    looked = f"not found under {str(folder)!r}" if folder else "neither --data-root nor $RBML_DATA is set"
    return DataError(f"{relative}: {looked}. {origin} Name the folder that holds it with --data-root or $RBML_DATA.")


def cache_dir() -> Path:
    """Return the folder for downloads and decoded arrays, which need not exist yet."""
    if own := os.environ.get("RBML_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "rbml"
    return Path("~/.cache/rbml").expanduser()


def fetch(name: str, url: str, checksum: str) -> Path:
    """Return a file from the network, downloaded once, its checksum tested.

    Args:
        name: its path inside the cache folder.
        url: where it comes from.
        checksum: ``"md5:..."`` or ``"sha256:..."``; a cached file that does not match is downloaded again.

    Raises:
        UsageError: if pooch is not installed.
        DataError: if the download fails, with the cause and what to do.
    """
    pooch = require("pooch", "download", f"downloading {name}")
    target = cache_dir() / "downloads" / name
    try:
        path = pooch.retrieve(
            url, known_hash=checksum, fname=target.name, path=target.parent, progressbar=find_spec("tqdm") is not None
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
        raise DataError(
            f"could not download {url}: {error}. Download it by other means and put it at {str(target)!r}, or put the "
            "data into a folder and name that with --data-root or $RBML_DATA."
        ) from None
    return Path(path)


def cached_arrays(key: str, build: Callable[[], Mapping[str, NDArray[np.generic]]]) -> Arrays:
    """Return ``build()``, kept as ``KEY.npz`` in the cache folder for the next time.

    The file is written under another name and then moved, so no reader ever sees half of it. A damaged file is built
    again. If the cache folder cannot be written, a warning is logged, and the arrays are built every time.

    Args:
        key: names everything that the arrays depend on, version included: characters other than letters, digits, ``.``,
            ``_`` and ``-`` become ``_``. See :func:`stamp` for arrays that are read from files.
        build: makes the arrays, by name.
    """
    path = cache_dir() / "arrays" / (re.sub(r"[^\w.-]", "_", key) + ".npz")
    arrays = _read(path)
    if arrays is None:
        arrays = dict(build())
        _write(path, arrays)
    return arrays


def stamp(*paths: Path) -> str:
    """Return eight hexadecimal digits that change when one of the files is changed or replaced."""
    facts = "\n".join(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths)
    return f"{zlib.crc32(facts.encode()):08x}"


def _read(path: Path) -> Arrays | None:
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, KeyError, TypeError, BadZipFile, zlib.error) as error:
        _log.warning("%s cannot be read (%s): it is built anew.", path, error)
        return None


def _write(path: Path, arrays: Arrays) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.stem}-{uuid4().hex}.tmp")
        try:
            with part.open("xb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("%s cannot be written (%s): the arrays are built again next time.", path, error)
