"""Sources of labelled examples, one file each. ``ALL`` is the table of them.

A new source is a file with a function ``load`` like the others (:class:`rbml.data.examples.Source`) and a
line in ``ALL``.
"""

from __future__ import annotations

from pathlib import Path

from rbml import errors
from rbml.data.examples import PARTS, Labelled, Source
from rbml.data.sources import digits, folder, glyphs, mnist, omniglot, quickdraw

__all__ = ["ALL", "PARTS", "Labelled", "Source", "load"]

ALL: dict[str, Source] = {
    "glyphs": glyphs.load,
    "digits": digits.load,
    "omniglot": omniglot.load,
    "quickdraw": quickdraw.load,
    "mnist": mnist.load,
    "folder": folder.load,
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
) -> Labelled:
    """Load one part of a source by name.

    Args:
        name: a name of ``ALL``, or ``folder:PATH`` for pictures of your own, one folder a class.
        part: ``"train"``, ``"val"`` or ``"test"``.
        root: the folder to look for data in, instead of ``$RBML_DATA``; for ``"folder"``, the pictures' folder itself.
        split: which division of the classes into parts; None for the usual one of the source.
        seed: for what is drawn or divided at random.
        size: for a folder only: pixels a side (28).
        channels: for a folder only: 1 for grey, 3 for colour (1).

    Raises:
        UsageError: for a name, part, split or option that does not exist.
        DataError: for data that is not there, or cannot be read.
    """
    kind, colon, path = name.partition(":")
    if kind == "folder":
        place = Path(path).expanduser() if colon else root
        return folder.load(part, place, split=split, seed=seed, size=size or 28, channels=channels or 1)
    if name not in ALL:
        raise errors.unknown("data source", name, [*ALL, "folder:PATH"])
    if size is not None or channels is not None:
        raise errors.UsageError(f"size and channels are free for a folder of pictures only: those of {name} are fixed.")
    return ALL[name](part, root, split=split, seed=seed)
