"""The tasks of the next outer step are drawn in a thread while this step runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Drawn = TypeVar("Drawn")

WORTH = 0.01
"""From this share of a step on, drawing goes on in a thread: below, the thread would cost as much as it saves."""


class Ahead(Generic[Drawn]):
    """Draws by step, the next one already while its caller computes.

    What is drawn must depend on the step alone, as tasks do, so that a run is the same with and without a thread.

    Args:
        draw: from a step to what it needs; it runs in one thread at a time.
        total: there are no steps from this one on.
    """

    def __init__(self, draw: Callable[[int], Drawn], total: int) -> None:
        """Begin with nothing drawn."""
        self._draw, self._total = draw, total
        self._next: tuple[int, Future[Drawn]] | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._returned: float | None = None

    def of(self, step: int) -> Drawn:
        """Return what a step needs, and begin to draw what the one after it needs.

        Whatever drawing raises is raised here, at the step that it concerns.
        """
        now = time.perf_counter()
        computing = now - self._returned if self._returned is not None else 0.0
        ready = self._next[1] if self._next is not None and self._next[0] == step else None
        found = self._draw(step) if ready is None else ready.result()
        drawing = time.perf_counter() - now  # what the step had to wait for
        if (self._next is not None or drawing > WORTH * computing > 0) and step + 1 < self._total:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "rbml-draw")
            self._next = step + 1, self._pool.submit(self._draw, step + 1)
        self._returned = time.perf_counter()
        return found

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Ahead[Drawn]:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self.close()
