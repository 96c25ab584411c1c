"""Sources of examples, one file each; ``ALL`` is the table of them.

A new source is a file with a function ``load`` like those of the others (:class:`rbml.data.examples.Source`) and a line
in ``ALL``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rbml import errors
from rbml.data.examples import PARTS, Examples, Grouped, Labelled, Source, kept_on
from rbml.data.sources import (
    banking77,
    clinc150,
    digits,
    folder,
    glyphs,
    grocery,
    mnist,
    omniglot,
    parkinsons,
    parquet,
    quickdraw,
    snips,
    table,
    text,
)

__all__ = ["ALL", "PARTS", "Examples", "Grouped", "Labelled", "Source", "kept_on", "load"]

ALL: dict[str, Source] = {
    "glyphs": glyphs.load,
    "digits": digits.load,
    "omniglot": omniglot.load,
    "quickdraw": quickdraw.load,
    "mnist": mnist.load,
    "grocery": grocery.load,
    "folder": folder.load,
    "parkinsons": parkinsons.load,
    "parquet": parquet.load,
    "table": table.load,
    "clinc150": clinc150.load,
    "banking77": banking77.load,
    "snips": snips.load,
    "text": text.load,
}


def load(
    name: str,
    part: str,
    root: str | Path | None = None,
    split: str | None = None,
    seed: int = 0,
    *,
    size: int | None = None,
    channels: int | None = None,
    **own: Any,
) -> Any:  # Examples; a union would make everyone who names a source test for the other kind
    """Load one part of a source by name.

    Args:
        name: a name of ``ALL``, ``folder:PATH`` for pictures of your own, one folder per class, ``parquet:PATH`` for
            pictures in Parquet or Arrow files, ``table:FILE`` for rows of your own, or ``text:FILE`` for sentences of
            your own.
        part: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder to look for data in, instead of ``$RBML_DATA``; for ``"folder"``, the pictures' folder itself,
            for ``"table"`` and ``"text"`` the file.
        split: which division of the classes into parts; ``None`` for the source's usual one.
        seed: for what is drawn or divided at random.
        size: for pictures of your own: height and width of the pictures in pixels (28).
        channels: for pictures of your own: 1 for grey, 3 for colour (1).
        **own: options that only this source has, such as ``group=`` and ``target=`` of a table.

    Returns:
        A :class:`Labelled` (classes), or for ``parkinsons`` and tables a :class:`Grouped` (real values).

    Raises:
        UsageError: for a name, part, split or option that does not exist.
        DataError: for data that is not there, or cannot be read.
    """  # noqa: DOC501  `unknown` returns the UsageError
    kind, colon, path = name.partition(":")
    if kind == "folder":
        place = Path(path).expanduser() if colon else root
        return folder.load(part, place, split=split, seed=seed, size=size or 28, channels=channels or 1)
    if kind == "parquet":
        own |= {"size": size or 28, "channels": channels or 1}
        return parquet.load(part, Path(path).expanduser() if colon else root, split=split, seed=seed, **own)
    if kind == "table":
        return table.load(part, Path(path).expanduser() if colon else root, split=split, seed=seed, **own)
    if kind == "text":
        return text.load(part, Path(path).expanduser() if colon else root, split=split, seed=seed, **own)
    if name not in ALL:
        raise errors.unknown("data source", name, [*ALL, "folder:PATH", "table:FILE", "text:FILE"])
    if size is not None or channels is not None:
        raise errors.UsageError(
            f"size and channels can be set for a folder of pictures only: those of {name} are fixed."
        )
    source: Callable[..., Examples] = ALL[name]
    return source(part, root, split=split, seed=seed, **own)
