"""Several pieces of work at the same time, each on one thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")


def side_by_side(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return the results of all pieces of work, in their order.

    Up to ``torch.get_num_threads()`` of them run at the same time, with one thread for each operator. Operators of a
    few tasks are too small to share among threads, so that this is faster than one piece after another. The results
    do not depend on the number of threads.

    Args:
        works: functions that change nothing that another one reads, and do not depend on PyTorch's modes.
    """
    threads = torch.get_num_threads()
    if len(works) == 1:
        return [works[0]()]
    with _one_thread_per_operator(threads):
        if threads == 1:
            return [work() for work in works]
        with ThreadPoolExecutor(min(threads, len(works)), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(_without_grad, works))


def _without_grad(work: Callable[[], Result]) -> Result:
    """Run a piece of work without recording it for a derivative, which is a choice of each thread."""
    with torch.no_grad():
        return work()


@contextmanager
def _one_thread_per_operator(threads: int) -> Iterator[None]:
    """Compute every operator on one thread inside the context, and then on as many as before."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
