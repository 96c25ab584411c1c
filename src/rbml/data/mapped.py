"""Decoded examples that are too many for memory: in a file of the cache folder, mapped into memory.

A mapped tensor is a tensor like any other; the operating system reads the rows that a task holds when they are used,
and forgets them when memory is needed. The file is written once, block by block. If that is interrupted, the next call
goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor

from rbml.data.progress import tell
from rbml.data.store import cache_dir
from rbml.errors import DataError

FROM = 2_000
"""From so many examples on they are kept in a file; fewer are read again every time, and lie in memory."""

BLOCK = 500

_log = logging.getLogger(__name__)


def kept(name: str, state: str, count: int, shape: Sequence[int], read: Callable[[int, int], Tensor]) -> Tensor:
    """Return ``(count, *shape)`` uint8, read once and kept in the cache folder under a name.

    If the folder cannot be written to, a warning is logged, and everything is read into memory.

    Args:
        name: letters, digits and ``-``: names what is kept.
        state: changes when the examples change, and they are then read anew: see :func:`rbml.data.store.stamp`.
        count: how many examples there are, at least one.
        shape: of an example.
        read: returns the examples from one place to another.

    Raises:
        DataError: of ``read``, for all blocks together: all are looked at first.
    """
    file = cache_dir() / "mapped" / f"{name}.u8"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):  # several processes of one run begin at the same moment
            _complete(file, state, count, math.prod(shape), read)
        return torch.from_file(str(file), shared=False, size=count * math.prod(shape), dtype=torch.uint8).view(
            count, *shape
        )
    except OSError as error:
        _log.warning("%s cannot be written (%s): all %d examples are read into memory.", file, error, count)
        return torch.cat([read(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)])


def _complete(file: Path, state: str, count: int, size: int, read: Callable[[int, int], Tensor]) -> None:
    """Write what is missing of a file.

    Raises:
        DataError: naming the examples that cannot be read.
    """
    done = _done(file, state, count, size)
    if not done:
        file.unlink(missing_ok=True)  # a process that has mapped the former file keeps it
    bad: list[DataError] = []
    with file.open("r+b" if done else "wb") as content:
        content.seek(done * size)
        for start in range(done, count, BLOCK):
            stop = min(start + BLOCK, count)
            try:
                block = read(start, stop)
            except DataError as error:
                bad.append(error)
                continue
            if not bad:
                content.write(block.contiguous().numpy().data)
                content.flush()
                _note(file, {"state": state, "count": count, "size": size, "done": stop})
            tell("pictures", stop, count)
    if bad:
        more = f" Others like this are in {len(bad) - 1} more blocks of {BLOCK}." if len(bad) > 1 else ""
        raise DataError(f"{bad[0]}{more}")


def _done(file: Path, state: str, count: int, size: int) -> int:
    """Return how many examples of this state are in the file."""
    try:
        found = json.loads(file.with_suffix(".json").read_text())
        same = (found["state"], found["count"], found["size"]) == (state, count, size)
        done = int(found["done"]) if same else 0
        return done if file.stat().st_size >= done * size else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _note(file: Path, values: dict[str, object]) -> None:
    part = file.with_suffix(".json.part")
    part.write_text(json.dumps(values))
    part.replace(file.with_suffix(".json"))
