"""Whether tasks run apart, each on a thread of its own, because the operators of one task are large enough for that.

Under ``vmap`` an operator is called once for all tasks, which pays where a call costs more than what it computes. Large
operators gain nothing: a convolution whose weights differ from task to task becomes a grouped one, the transforms keep
more for second derivatives, and PyTorch's threads share single operators badly. Tasks that run apart have plain graphs
of ``torch.autograd``, and threads of their own. With ``compile="whole"`` the graph of one task is compiled; it runs
without the interpreter's lock, which otherwise bounds the gain of threads. With ``compile="step"`` so do the graphs of
one step. Small steps are one graph for several of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from rbml.learner.checks import Predict
from rbml.tasks.base import one

if TYPE_CHECKING:
    from rbml.learner.learner import Learner

LARGE = 2e6
"""From how many floating-point operations on, per product or convolution of one task on average, tasks run apart.

Measured on two cores (docs/performance.md): about equal at 1.5 to 2 million with two threads, at 5 with one.
"""


BLOCK, PRODUCTS, SMALL = 5, 12, 1e6
"""Small compiled steps are one graph for so many of them, if the model has about so many products or fewer in them.

Small are those whose products take fewer floating-point operations, on average and for all tasks at once: a call of a
graph then takes as long as the step. More steps in a graph would gain little, and compile for longer
(docs/performance.md).
"""


def apart(learner: Learner, tasks: Any, predict: Predict, ways: int | None) -> bool:
    """Return whether tasks of these shapes run apart.

    It depends on nothing but the model and the shapes, so that a run gives the same result wherever it goes on.

    Args:
        learner: the learner, which remembers the answer.
        tasks: the stack.
        predict: the unadapted model.
        ways: C.
    """
    run = learner.execution
    if run.vectorise != "auto" or run.compile == "trace" or learner.device.type != "cpu":
        return False
    calls, operations = _counted(learner, tasks, predict, ways)
    return operations >= LARGE * max(calls, 1)


def steps_at_once(learner: Learner, tasks: Any, at_once: int, ways: int | None) -> int:
    """Return how many steps one compiled graph takes.

    Args:
        learner: the learner, which remembers the answer.
        tasks: the stack.
        at_once: how many tasks run side by side.
        ways: C.
    """
    calls, operations = _counted(learner, tasks, learner.predict(ways), ways)
    if learner.device.type != "cpu" or learner.execution.compile != "step" or at_once * operations >= SMALL * calls:
        return 1
    return max(1, min(BLOCK, PRODUCTS // max(calls, 1)))


def _counted(learner: Learner, tasks: Any, predict: Predict, ways: int | None) -> tuple[int, int]:
    """Return the number of products and convolutions of one forward pass of one task, and their operations."""
    key = ("products", *shapes_of(tasks, ways))
    if key not in learner.tried:
        task = one(tasks, 0)
        with torch.no_grad(), _Count() as count:
            predict((task.at(0) if learner.steps else task.query).x)
        learner.tried[key] = count.calls, count.operations
    found: tuple[int, int] = learner.tried[key]
    return found


def shapes_of(tasks: Any, ways: int | None) -> tuple[Any, ...]:
    """Return the shapes and types of a task of this stack: a hashable value on which the size of its work depends."""
    return ways, *((tuple(leaf.shape[1:]), leaf.dtype) for leaf in tree_leaves(tasks))


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts products and convolutions, and their floating-point operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = self.operations = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        operations = flop_registry.get(getattr(func, "overloadpacket", None))
        if operations is not None:
            self.calls += 1
            self.operations += operations(*args, **(kwargs or {}), out_val=found)
        return found
