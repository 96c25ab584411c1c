"""Whether a task is computed by itself, with plain graphs of ``torch.autograd`` and no transform of ``torch.func``.

PyTorch's own operators then have the derivatives that are needed, and are faster than formulas for the transforms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch._C._functorch import get_interpreter_stack

_alone: ContextVar[bool] = ContextVar("_alone", default=False)
_in_threads: ContextVar[bool] = ContextVar("_in_threads", default=False)


@contextmanager
def alone(in_threads: bool = False) -> Iterator[None]:
    """Let the derivatives that are taken inside be those of one task by itself.

    Args:
        in_threads: whether other tasks are computed in other threads at the same time.
    """
    tokens = (_alone, _alone.set(True)), (_in_threads, _in_threads.set(in_threads))
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


def is_in_threads() -> bool:
    """Return whether other tasks are computed in other threads at the same time."""
    return _in_threads.get()


def is_alone() -> bool:
    """Return whether derivatives are taken by ``torch.autograd``: for one task, and inside no transform."""
    return _alone.get() and not get_interpreter_stack()
