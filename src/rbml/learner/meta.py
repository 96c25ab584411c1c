"""The meta-gradient of a stack of tasks: which engine, run how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from rbml.errors import UsageError
from rbml.hypergrad import Hypergradient, Implicit, MetaGradient
from rbml.learner.options import Phase
from rbml.learner.verification import verify
from rbml.tasks import Task
from rbml.tasks.base import count, one
from rbml.tree import Tree, prefixed, under

if TYPE_CHECKING:
    from rbml.learner.learner import Learner


def meta_gradient(learner: Learner, tasks: Task, phase: Phase, ways: int | None, warm: Tree | None) -> MetaGradient:
    """Return the mean over a stack of tasks that was checked; arguments as of :meth:`Learner.meta_gradient`.

    Raises:
        UsageError: if ``warm`` does not fit the engine.
    """
    engine: Any = phase.hypergradient
    if warm is not None and not isinstance(engine, Implicit):
        raise UsageError(f"warm= is for the engine Implicit, and this is {engine}: leave it out")
    device = tasks.query.y.device
    weights = learner.step_weights(phase, device)
    keys = torch.randint(2**62, (count(tasks),), device=device) if learner.strategy.random else None
    _verify_once(learner, tasks, engine, keys)
    m = {name: leaf.detach() for name, leaf in learner.named_parameters() if leaf.requires_grad}

    def single(m: Tree, given: dict[str, Any], *weights: Tensor) -> tuple[Tensor, Tree, Tree]:
        bound = learner.bind(given["task"], None, ways, weights[0] if weights else None, given.get("key"))
        inner = bound.inner()
        loss, grads, aux, info = engine(inner, m) if warm is None else engine(inner, m, warm=given["warm"])
        return loss, grads, prefixed(aux | {"loss": loss}, "aux.") | prefixed(info, "info.")

    stack: dict[str, Any] = {"task": tasks}
    if keys is not None:
        stack["key"] = keys
    if warm is not None:
        stack["warm"] = warm
    shared = () if weights is None else (weights,)
    variant = (engine, learner.statistics, ways, None if warm is None else tuple(warm))
    loss, grads, kept = learner.over_tasks.mean(single, m, stack, shared, learner.compiled, variant)
    return MetaGradient(loss, grads, under(kept, "aux."), under(kept, "info."))


def _verify_once(learner: Learner, tasks: Task, engine: Hypergradient, keys: Tensor | None) -> None:
    """Verify the derivative of the first task, the first time that tasks of these shapes come with this engine."""
    if not learner.execution.verify:
        return
    shapes = (repr(engine), *((tuple(leaf.shape[1:]), leaf.dtype) for leaf in tree_leaves(tasks)))
    if shapes not in learner.verified:
        verify(learner, one(tasks, 0), engine, None if keys is None else keys[0])
        learner.verified.add(shapes)
