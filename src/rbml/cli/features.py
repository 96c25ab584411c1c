"""Progress while a pretrained backbone computes features, which takes seconds to minutes the first time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rbml.cli.show import bar, errors
from rbml.data.inputs.embedded import watched

_MANY = 200


@contextmanager
def features_shown() -> Iterator[None]:
    """Show how many features have been computed: a bar on a terminal, elsewhere one line where there are many."""
    with bar(0, what="features") as progress:

        def watch(done: int, total: int) -> None:
            progress.update(progress.task_ids[0], completed=done, total=total)
            if not errors.is_terminal and total >= _MANY and done * 10 // total != (done - 16) * 10 // total:
                errors.print(f"features: {done} of {total}")

        with watched(watch):
            yield
