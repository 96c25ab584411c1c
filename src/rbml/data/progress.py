"""Progress of reading data, which can take minutes: whoever reads tells, and whoever shows progress listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watch = Callable[[str, int, int], None]
"""Called with what is read ("features"), how many are done, and how many there are."""

_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Have a function called while data is read."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def tell(what: str, done: int, total: int) -> None:
    """Tell how far reading has come."""
    watch = _watch.get()
    if watch is not None:
        watch(what, done, total)
