"""Pictures of your own in Parquet or Arrow files, as the library datasets of Hugging Face writes them."""

from __future__ import annotations

import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbml.data import mapped, store
from rbml.data.augment import DRAWINGS, PHOTOGRAPHS
from rbml.data.examples import Labelled, check_part, check_split
from rbml.data.extras import require
from rbml.data.inputs import Pictures
from rbml.data.sources.table import divide
from rbml.errors import DataError, UsageError

_ENDINGS = {".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc"}


def load(
    part: str,
    root: str | Path | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    image: str = "image",
    label: str = "label",
    size: int = 28,
    channels: int = 1,
) -> Labelled:
    """Pictures of your own in Parquet or Arrow files, however many: parquet:PATH.

    The classes are shuffled with ``seed`` and divided 64 : 16 : 20. The pictures of a part are decoded once and kept in
    the cache folder (:mod:`rbml.data.mapped`).

    Args:
        part: ``"train"``, ``"val"`` or ``"test"``: they share no class.
        root: a ``.parquet``, ``.arrow`` or ``.feather`` file, or a folder of them.
        split: ``"classes"``, or ``None``.
        seed: for the division.
        image: the column of the pictures: the bytes of a picture file, alone or as ``{"bytes": ...}``.
        label: the column of the labels: text or whole numbers, whose names are taken from the file where it has them.
        size: height and width in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        ``x`` ``(N, channels, size, size)`` uint8; names are the labels.

    Raises:
        UsageError: for a part or a split that does not exist, if no path is given, or if pyarrow is not installed.
        DataError: for files that cannot be used, a column that is missing, or pictures that cannot be read; it names
            the row.
    """
    check_part(part)
    check_split(split, "classes")
    if root is None:
        raise UsageError("the source parquet needs a file or a folder: parquet:PATH.")
    path, modality = Path(root).expanduser(), Pictures(size, channels)
    files = _files(path)
    found = _opened(path, files)
    for column in (image, label):
        if column not in found.schema.names:
            raise DataError(
                f"{path} has no column {column!r}, only {', '.join(found.schema.names)}: name the columns with "
                "--set data.image=COLUMN and --set data.label=COLUMN."
            )
    labels = _labels(path, found, label)
    names = sorted(divide(sorted(set(labels)), seed, str(path), ("class", "classes"), "label")[part])
    place = {name: at for at, name in enumerate(names)}
    rows = np.array([row for row, name in enumerate(labels) if name in place], dtype=np.int64)

    def read(start: int, stop: int) -> Tensor:
        return _pictures(path, found, image, rows[start:stop], modality)

    key = f"parquet-1-{zlib.crc32(f'{path.resolve()} {image} {label} {seed}'.encode()):08x}-{part}-{size}-{channels}"
    x = mapped.kept(key, store.stamp(*files), len(rows), (channels, size, size), read)
    y = torch.tensor([place[labels[row]] for row in rows])
    about = f"pictures of {path.resolve()}, part {part} (classes shuffled with seed {seed})"
    about = f"{about}: {len(names)} classes, {len(x)} pictures, {size}x{size}"
    return Labelled(x, y, names, about, modality, PHOTOGRAPHS if channels == 3 else DRAWINGS)


def _files(path: Path) -> list[Path]:
    """Return the files of a path, sorted.

    Raises:
        DataError: if there are none.
    """
    found = sorted(one for one in path.rglob("*") if one.suffix in _ENDINGS) if path.is_dir() else [path]
    if not found or not found[0].is_file() or found[0].suffix not in _ENDINGS:
        what = "has no such files" if path.is_dir() else "is not such a file" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}: expected {', '.join(_ENDINGS)}, or a folder of them.")
    if other := [one for one in found if one.suffix != found[0].suffix]:
        raise DataError(
            f"{path} has files of several kinds, such as {found[0].name} and {other[0].name}: keep one kind."
        )
    return found


def _opened(path: Path, files: list[Path]) -> Any:
    """Return the files as one data set of pyarrow.

    Raises:
        UsageError: if pyarrow is not installed.
        DataError: if a file is damaged, or has other columns than the first.
    """
    library = require("pyarrow.dataset", "parquet", "reading Parquet and Arrow files")
    arrow = require("pyarrow", "parquet", "reading Parquet and Arrow files")
    try:
        found = library.dataset([str(one) for one in files], format=_ENDINGS[files[0].suffix])
        found.count_rows()
    except (arrow.ArrowException, OSError) as error:
        # The library datasets writes streams into its .arrow files, and pyarrow's data sets read files only.
        if files[0].suffix == ".parquet":
            raise DataError(f"{path} cannot be read ({_first_line(error)}): write it again.") from error
        return _streams(path, files, library, arrow)
    return found


def _streams(path: Path, files: list[Path], library: Any, arrow: Any) -> Any:
    """Return files that hold streams of Arrow, mapped into memory, as one data set.

    Raises:
        DataError: if a file is damaged.
    """
    ipc = require("pyarrow.ipc", "parquet", "reading Parquet and Arrow files")
    try:
        tables = [ipc.open_stream(arrow.memory_map(str(one))).read_all() for one in files]
        return library.dataset(arrow.concat_tables(tables))
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({_first_line(error)}): write it again.") from error


def _labels(path: Path, found: Any, column: str) -> list[str]:
    """Return the name of every row's class.

    Raises:
        DataError: for labels that are neither text nor whole numbers, or are missing.
    """
    values = found.to_table(columns=[column])[column].to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, str | int):
            raise DataError(f"{path}, row {row}: the label is {value!r}, expected text or a whole number.")
    names = _class_names(found.schema.metadata or {}, column)
    return [names[value] if isinstance(value, int) and 0 <= value < len(names) else str(value) for value in values]


def _class_names(metadata: dict[bytes, bytes], column: str) -> list[str]:
    """Return the names of the classes that the library datasets writes beside the columns; none if there are none."""
    try:
        found = json.loads(metadata[b"huggingface"])["info"]["features"][column]["names"]
    except (KeyError, ValueError, TypeError):
        return []
    return list(map(str, found))


def _pictures(path: Path, found: Any, column: str, rows: NDArray[np.int64], modality: Pictures) -> Tensor:
    """Return the pictures of rows, ``(n, channels, size, size)``.

    Raises:
        DataError: naming the rows that hold no pictures.
    """
    pictures, bad = [], []
    for row, value in zip(rows.tolist(), found.take(rows, columns=[column])[column].to_pylist(), strict=True):
        content: Any = value.get("bytes") if isinstance(value, dict) else value
        try:
            pictures.append(modality.read([BytesIO(content)]))
        except (DataError, TypeError):  # what is no bytes is a TypeError
            bad.append(str(row))
    if bad:
        several = f"rows {', '.join(bad[:3])}" + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        raise DataError(
            f"{path}: the column {column!r} has no picture that can be read in {several}: remove these rows, or name "
            "the right column with --set data.image=COLUMN."
        )
    return torch.cat(pictures)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
