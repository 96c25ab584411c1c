"""Read sentences of files: CSV, TSV and JSONL with columns, or plain lines; every error names its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rbml.errors import DataError

TEXT_COLUMNS = ("text", "sentence", "utterance", "query")
"""What the column of the sentences may be called, if it is not named."""

LABEL_COLUMNS = ("label", "intent", "category", "class")
"""What the column of the labels may be called, if it is not named."""

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt")
LONGEST = 10_000  # characters: a longer cell is a document, or what an unclosed quotation mark has swallowed
_SHOWN = 40


class Sentence(NamedTuple):
    """One sentence of a file.

    Attributes:
        text: the sentence.
        label: its label; ``None`` if it has none.
        place: the file and line, ``"intents.csv:7"``.
    """

    text: str
    label: str | None
    place: str


def read_sentences(path: str | Path, labelled: bool, text: str = "", label: str = "") -> list[Sentence]:
    """Read the sentences of a file; what it is, its ending says: ``.csv``, ``.tsv``, ``.jsonl``, or lines of text.

    Args:
        path: the file, in UTF-8.
        labelled: whether every sentence must have a label.
        text: the column of the sentences; empty: one of :data:`TEXT_COLUMNS`.
        label: the column of the labels; empty: one of :data:`LABEL_COLUMNS`.

    Raises:
        DataError: naming the line that cannot be used.
    """
    path = Path(path).expanduser()
    content = _decoded(path)
    kind = path.suffix.lower()
    if kind in (".jsonl", ".json", ".ndjson"):
        rows = _json_rows(path, content)
    elif kind in (".csv", ".tsv"):
        rows = _csv_rows(path, content)
    elif labelled:
        raise DataError(
            f"{str(path)!r} cannot have labels: expected a file that ends in .csv or .tsv, with columns text and "
            'label, or in .jsonl, with lines such as {"text": "...", "label": "..."}.'
        )
    else:
        rows = ((number, {"text": line}) for number, line in enumerate(content.splitlines(), 1) if line.strip())
        text = "text"
    found = [_sentence(path, number, row, labelled, text, label) for number, row in rows]
    if not found:
        raise DataError(f"{str(path)!r} has no sentences in it: expected one in each line.")
    return found


def _decoded(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{str(path)!r} does not exist: name a CSV, TSV, JSONL or text file.") from None
    except IsADirectoryError:
        raise DataError(f"{str(path)!r} is a folder: name a CSV, TSV, JSONL or text file.") from None
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}.") from None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{str(path)!r} is in UTF-16: save it in UTF-8 (in Excel: 'CSV UTF-8').")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line} is not in UTF-8 (byte 0x{raw[error.start]:02x}), which the lines above it are: save the "
            "whole file in UTF-8."
        ) from None


def _csv_rows(path: Path, content: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the rows below the header with the number of the line in which each begins."""
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=content.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator)
    columns: list[str] = []
    begin = 1
    try:
        for cells in reader:
            number, begin = begin, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if not columns:
                columns = [cell.strip() for cell in cells]
                _check_header(path, number, columns)
                continue
            if len(cells) != len(columns):
                raise DataError(
                    f"{path}:{number} has {len(cells)} cells, but the header has {len(columns)}: put a text that "
                    f"contains {separator!r} between quotation marks."
                )
            yield number, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path}:{begin} cannot be read ({error}): is a quotation mark not closed? Texts may have at most "
            f"{LONGEST} characters."
        ) from None


def _check_header(path: Path, number: int, columns: list[str]) -> None:
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise DataError(f"{path}:{number} names the column {twice[0]!r} twice: give each its own name.")


def _json_rows(path: Path, content: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{path}:{number} is not JSON ({error}): expected one object in each line, such as "
                '{"text": "where is my card?", "label": "card_arrival"}.'
            ) from None
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number} is {_short(line)}: expected an object such as {{"text": "..."}}.')
        yield number, row


def _sentence(path: Path, number: int, row: Mapping[str, str], labelled: bool, text: str, label: str) -> Sentence:
    place = f"{path}:{number}"
    value = _cell(row, text, TEXT_COLUMNS, "text", place)
    if len(value) > LONGEST:
        raise DataError(
            f"{place} has a text of {len(value)} characters, but at most {LONGEST} are expected: is a quotation mark "
            "not closed?"
        )
    kind = _cell(row, label, LABEL_COLUMNS, "label", place) if labelled else None
    return Sentence(value, kind, place)


def _cell(row: Mapping[str, str], named: str, usual: tuple[str, ...], what: str, place: str) -> str:
    column = named or next((name for name in usual if name in row), "")
    if column not in row:
        wanted = repr(named) if named else f"{what!r} (or {', '.join(usual[1:])})"
        raise DataError(f"{place} has no column {wanted}: it has {', '.join(map(str, row)) or 'none'}.")
    value = row[column]
    if not isinstance(value, str | int):
        raise DataError(f"{place} has {_short(json.dumps(value))} in the column {column!r}: expected a text.")
    if not str(value).strip():
        raise DataError(f"{place} has nothing in the column {column!r}: write a {what} there, or remove the line.")
    return str(value).strip()


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def looks_like_a_file(place: str) -> bool:
    """Return whether what a user wrote names a file that may not exist, and is not a sentence."""
    return Path(place).suffix.lower() in SUFFIXES and " " not in place.strip()
