"""Read CSV files: rows of text with their line numbers, and their columns as numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rbml.errors import DataError


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        cells: the text of each column, by its name.
        place: the file and line, ``"scores.csv:7"``.
    """

    cells: Mapping[str, str]
    place: str


class Rows(NamedTuple):
    """A file with a header.

    Attributes:
        path: the file.
        columns: the names in its header.
        rows: the rows below it, blank lines left out.
    """

    path: Path
    columns: list[str]
    rows: list[Row]


def read_rows(path: str | Path) -> Rows:
    """Read a CSV file with a header; semicolons and tabs separate as well as commas, whichever the header has.

    Raises:
        DataError: if the file is missing, is not text, has no rows, names a column twice, or has a row with more or
            fewer cells than the header.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        lines = [([cell.strip() for cell in cells], reader.line_num) for cells in reader if any(map(str.strip, cells))]
    except FileNotFoundError:
        raise DataError(f"{str(path)!r} does not exist: name a CSV file with a header.") from None
    except IsADirectoryError:
        raise DataError(f"{str(path)!r} is a folder: name a CSV file with a header.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{str(path)!r} cannot be read as CSV in UTF-8 ({error}): save it in that format.") from None
    if len(lines) < 2:
        what = "no rows below its header" if lines else "nothing in it"
        raise DataError(f"{str(path)!r} has {what}: expected a line with the names of the columns, and then rows.")
    columns, first = lines[0]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path}:{first} names the column {twice[0]!r} twice: give each its own name.")
    rows = []
    for cells, number in lines[1:]:
        if len(cells) != len(columns):
            raise DataError(
                f"{path}:{number} has {len(cells)} cells, but the header has {len(columns)}: repair the row."
            )
        rows.append(Row(dict(zip(columns, cells, strict=True)), f"{path}:{number}"))
    return Rows(path, columns, rows)


def check_columns(needed: Sequence[str], columns: Sequence[str], place: str) -> None:
    """Refuse a file that lacks some of the columns.

    Raises:
        DataError: naming those that are missing and those that are there.
    """
    if missing := [name for name in needed if name not in columns]:
        named = ", ".join(map(repr, missing[:4])) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise DataError(f"{place} has no column {named}: it has {', '.join(columns)}.")


def numbers(rows: Sequence[Row], columns: Sequence[str]) -> NDArray[np.float64]:
    """Return columns of rows as numbers, ``(rows, columns)``.

    Raises:
        DataError: naming the line and the column of a cell that is empty or not a finite number.
    """
    found = np.empty((len(rows), len(columns)))
    for index, row in enumerate(rows):
        for at, name in enumerate(columns):
            found[index, at] = _number(row, name)
    return found


def _number(row: Row, name: str) -> float:
    if name not in row.cells:
        check_columns([name], list(row.cells), row.place)
    text = row.cells[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        came = repr(text) if text else "nothing"
        raise DataError(
            f"{row.place} has {came} in the column {name!r}: expected a finite number. Repair it, remove the row, or "
            "leave the column out of the inputs."
        )
    return value
