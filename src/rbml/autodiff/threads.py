"""Several pieces of work at the same time, each on one thread of its own."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, func, nn
from torch._C._functorch import get_interpreter_stack
from torch.utils._pytree import tree_leaves

Result = TypeVar("Result")

_forward = threading.RLock()
_copies: ContextVar[dict[int, tuple[nn.Module, nn.Module]] | None] = ContextVar("_copies", default=None)


def side_by_side(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Return the results of all pieces of work, in their order.

    Up to ``torch.get_num_threads()`` of them run at the same time, with one thread for each operator. Operators of a
    few tasks are too small to share among threads, so that this is faster than one piece after another. The results
    do not depend on the number of threads.

    Args:
        works: functions that change nothing that another one reads, apart from modules that they reach through
            :func:`own_copy`, and that do not depend on PyTorch's modes (:func:`has_modes`).
    """
    threads = torch.get_num_threads()
    if len(works) == 1:
        return [works[0]()]
    with _one_thread_per_operator(threads):
        if threads == 1:
            return [work() for work in works]
        with ThreadPoolExecutor(min(threads, len(works)), initializer=_begin_thread) as pool:
            return list(pool.map(partial(_with_grad, torch.is_grad_enabled()), works))


def own_copy(module: nn.Module) -> nn.Module:
    """Return the copy of a module that belongs to this thread: outside :func:`side_by_side` the module itself.

    While a module runs as a function, its parameters are replaced for a moment, which must not happen in two threads at
    the same time. The copy has the same tensors, and layers of its own.
    """
    copies = _copies.get()
    if copies is None:
        return module
    if id(module) not in copies:
        kept = (leaf for layer in module.modules() for leaf in tree_leaves(layer.__dict__))
        tensors = {id(leaf): leaf for leaf in kept if isinstance(leaf, Tensor)}
        own = copy.deepcopy(module, tensors)
        copies[id(module)] = module, own  # with the original, so that no id is used twice
        copies[id(own)] = own, own
    return copies[id(module)][1]


def forward_derivative(function: Callable[..., Any], point: tuple[Any, ...], direction: tuple[Any, ...]) -> Any:
    """Return ``torch.func.jvp`` of the same arguments, in one thread at a time.

    The levels of forward derivatives belong to the whole process: what one thread leaves, another one loses.
    """
    with _forward:
        return func.jvp(function, point, direction)


def has_modes() -> bool:
    """Return whether a mode of PyTorch or a transform is active here, which other threads would not see."""
    return bool(
        torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch.is_autocast_enabled("cpu")
        or torch.is_inference_mode_enabled()
        or get_interpreter_stack()
    )


def _begin_thread() -> None:
    torch.set_num_threads(1)
    _copies.set({})


def _with_grad(enabled: bool, work: Callable[[], Result]) -> Result:
    """Run a piece of work; whether it is recorded for a derivative is a choice of each thread."""
    with torch.set_grad_enabled(enabled):
        return work()


@contextmanager
def _one_thread_per_operator(threads: int) -> Iterator[None]:
    """Compute every operator on one thread inside the context, and then on as many as before."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
