"""Whether the graphs of all inner steps fit into memory, so that no gradient need be taken a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rbml.hypergrad import Adjoint, Hypergradient, Unrolled
from rbml.inner import Inner
from rbml.tree import Tree

if TYPE_CHECKING:
    from rbml.learner.learner import Learner

BUDGET = 2**28
"""How many bytes the graphs of all inner steps of a chunk may take where ``Adjoint`` is free to keep them."""

BUDGET_OF_ONE = 2**30
"""The same for one task by itself, whose graphs are half as large, and twice as fast as taking every gradient again."""


def with_graphs(
    learner: Learner, engine: Hypergradient, inner: Callable[[], Inner], tasks: int, shapes: Any, apart: bool = False
) -> Hypergradient:
    """Return ``Unrolled``, which is faster, in place of an ``Adjoint`` that leaves it open how many graphs are kept.

    Both are exact, and equal up to rounding. A graph compiled for several tasks computes nothing twice, so that there
    ``Adjoint`` stays.

    Args:
        learner: the learner, which remembers the answer for tasks of these shapes.
        engine: the engine that was asked for.
        inner: returns the inner loop of one task.
        tasks: how many tasks run at once.
        shapes: a hashable value of everything on which the size of a graph depends.
        apart: whether others run beside it, each by itself: then each may take no more than a chunk of them.
    """
    free = isinstance(engine, Adjoint) and engine.keep is None and engine.store == "all" and engine.hvp == "forward"
    operators = learner.execution.compile == "no" or (learner.execution.compile == "whole" and apart)
    if not free or not operators or learner.steps == 0:  # without steps there is nothing to keep
        return engine
    assert isinstance(engine, Adjoint)
    key = ("graphs", engine.window, tasks, learner.steps, shapes, apart)
    if key not in learner.tried:
        seen = learner.steps if engine.window is None else min(engine.window, learner.steps)
        budget = BUDGET_OF_ONE if tasks == 1 and not apart else BUDGET
        learner.tried[key] = tasks * seen * step_bytes(inner()) <= budget
    return Unrolled(window=engine.window) if learner.tried[key] else engine


def step_bytes(inner: Inner) -> int:
    """Return how many bytes one task's first step takes if it is differentiated itself: its graph, and its results."""
    carry = inner.start({})
    results = [*carry.theta.values(), *carry.theta.values(), *carry.state.values()]  # theta, its gradient, the state
    return kept_bytes(lambda theta: gradient(inner, theta, 0), carry.theta) + sum(leaf.nbytes for leaf in results)


def gradient(inner: Inner, theta: Tree, t: int) -> tuple[Tensor, ...]:
    """Return an inner gradient with its graph, by ``torch.autograd``: saved-tensor hooks see nothing in torch.func."""
    return torch.autograd.grad(
        inner.objective(theta, {}, t), list(theta.values()), create_graph=True, materialize_grads=True
    )


def kept_bytes(function: Callable[[Tree], object], theta: Tree) -> int:
    """Return the bytes that autograd keeps for the derivative of a function, its parameters left out."""
    point = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
    own = {leaf.untyped_storage().data_ptr() for leaf in point.values()}
    kept: dict[int, Tensor] = {}  # by address; kept alive, so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function(point)
    return sum(tensor.nbytes for tensor in kept.values())
