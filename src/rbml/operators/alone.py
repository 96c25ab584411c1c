"""Whether a task is computed by itself, with plain graphs of ``torch.autograd`` and no transform of ``torch.func``.

PyTorch's own operators then have the derivatives that are needed, and are faster than formulas for the transforms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch._C._functorch import get_interpreter_stack

_alone: ContextVar[bool] = ContextVar("_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Let the derivatives that are taken inside be those of one task by itself."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_alone() -> bool:
    """Return whether derivatives are taken by ``torch.autograd``: for one task, and inside no transform."""
    return _alone.get() and not get_interpreter_stack()
