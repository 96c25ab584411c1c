"""Progress while data is read: the pictures of a large folder, the features of a backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rbml.cli.show import bar, errors
from rbml.data.progress import watched

_MANY = 200


@contextmanager
def reading_shown() -> Iterator[None]:
    """Show how much has been read: a bar on a terminal, elsewhere ten lines where there is much."""
    with bar(0, what="features") as progress:
        tenth = -1

        def watch(what: str, done: int, total: int) -> None:
            nonlocal tenth
            progress.update(progress.task_ids[0], completed=done, total=total, description=what)
            before, tenth = tenth, done * 10 // total
            if not errors.is_terminal and total >= _MANY and tenth != before:
                errors.print(f"{what}: {done} of {total}")

        with watched(watch):
            yield
