"""The meta-gradient of a stack of tasks: chooses the path (compiled, head only, warm start) and runs the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rbml.autodiff import WHOLE, Shard
from rbml.autodiff.compiled import is_replayed
from rbml.devices import placed
from rbml.errors import UsageError
from rbml.hypergrad import Hypergradient, Implicit, MetaGradient
from rbml.inner import Inner
from rbml.learner.apart import apart, shapes_of, steps_at_once
from rbml.learner.binding import BoundTask
from rbml.learner.checks import check_tasks, explained
from rbml.learner.choosing import choose
from rbml.learner.frozen import FrozenBody, frozen_body
from rbml.learner.graphs import with_graphs
from rbml.learner.options import Phase
from rbml.learner.steps import Pieces, one_by_one, stacked
from rbml.learner.verification import verify
from rbml.models.dropout import dropouts
from rbml.tasks import Task
from rbml.tasks.base import count, one
from rbml.tree import Tree, prefixed, under

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from rbml.learner.learner import Learner


def meta_gradient(
    learner: Learner, tasks: Task, warm: Tree | None, phase: Phase | None, ways: int | None, shard: Shard
) -> MetaGradient:
    """Return the mean over a stack of tasks; arguments as in :meth:`rbml.Learner.meta_gradient`."""
    if learner.execution.compile == "auto":
        if shard is not WHOLE:
            raise UsageError('compile="auto" measures in each process by itself: name "no", "trace", "whole" or "step"')
        choice = choose(learner, tasks)
        learner.run(choice.execution)
        _log.info("%s", choice)
    phase = learner.phase(1.0) if phase is None else phase
    ways = learner.ways if ways is None else ways
    tasks, predict = placed(tasks, learner.device), learner.predict(ways)
    check_tasks(tasks, ways, learner.steps, learner.dtype, predict, first_time(learner, tasks, ways))
    first = one(tasks, 0)
    with explained(predict, learner.loss, (first.support, first.query)):
        large = apart(learner, tasks, predict, ways)
        return _over_tasks(learner, tasks, phase, ways, warm, shard, large)


def _over_tasks(
    learner: Learner, tasks: Task, phase: Phase, ways: int | None, warm: Tree | None, shard: Shard, large: bool
) -> MetaGradient:
    engine: Any = phase.hypergradient
    if warm is not None and not isinstance(engine, Implicit):
        raise UsageError(f"warm= works only with the engine Implicit, and this is {engine}: leave it out")
    device = tasks.query.y.device
    weights = step_weights(learner, phase, device)
    # One key per task: an engine that takes a step twice must draw the same numbers both times.
    dropping = bool(dropouts(learner.model))
    drawn = learner.strategy.random or dropping
    # Every process draws those of all tasks.
    keys = shard.own(torch.randint(2**62, (shard.count(count(tasks)),))).to(device) if drawn else None
    _verify_once(learner, tasks, engine, keys, ways)
    m = {name: leaf.detach() for name, leaf in learner.named_parameters() if leaf.requires_grad}

    # A body that drops gives other features at every step.
    first = learner.bind(one(tasks, 0), None, ways, dropping=dropping)
    layer = None if dropping else frozen_body(first, engine, learner.tried)

    def bind(given: dict[str, Any]) -> BoundTask:
        return replace(first, task=given["task"], step_weights=given.get("weights"), key=given.get("key"))

    def single(m: Tree, given: dict[str, Any]) -> tuple[Tensor, Tree, Tree]:
        bound = bind(given)
        if layer is not None:
            loss, grads, aux, info = FrozenBody(bound, layer).gradient(engine, m)
        elif warm is not None:
            loss, grads, aux, info = engine(bound.inner(), m, warm=given["warm"])
        else:
            loss, grads, aux, info = engine(bound.inner(), m)
        return loss, grads, prefixed(aux | {"loss": loss}, "aux.") | prefixed(info, "info.")

    stack: dict[str, Any] = {"task": tasks}
    if keys is not None:
        stack["key"] = keys
    if warm is not None:
        stack["warm"] = warm
    if weights is not None:
        stack["weights"] = weights.expand(count(tasks), -1)
    plain = learner.compiled is None
    separately = large or (plain and learner.over_tasks.separately(tasks, shard))
    at_once = 1 if separately else min(learner.execution.chunk, shard.count(count(tasks)))  # the same in every process
    beside = separately and shard.count(count(tasks)) > 1
    engine = with_graphs(learner, engine, partial(_inner, bind, stack, layer), at_once, shapes_of(tasks, ways), beside)
    # Compiled graphs are kept by shapes; these are the Python values on which a graph depends besides.
    variant = (engine, learner.statistics, ways, None if warm is None else tuple(warm))
    if one_by_one(learner.execution.compile, engine, learner.steps):
        assert learner.compiled is not None
        pieces = Pieces(steps_at_once(learner, tasks, at_once, ways), large, int(beside))
        run = partial(stacked, bind, layer, engine, compiled=learner.compiled, variant=variant, pieces=pieces)
        # A traced step calls nothing but its graphs; the features of a frozen body are computed by the model itself.
        graphs = variant if layer is None and (is_replayed(learner.compiled) or large) else None
        loss, grads, kept = learner.over_tasks.mean_of_stacks(run, m, stack, graphs, shard, large)
        return MetaGradient(loss, grads, kept, {})
    loss, grads, kept = learner.over_tasks.mean(single, m, stack, learner.compiled, variant, shard, separately)
    return MetaGradient(loss, grads, under(kept, "aux."), under(kept, "info."))


def _verify_once(learner: Learner, tasks: Task, engine: Hypergradient, keys: Tensor | None, ways: int | None) -> None:
    """Verify the derivative of one task, the first time that this engine is used on tasks of these shapes."""
    if not learner.execution.verify:
        return
    shapes = (repr(engine), shapes_of(tasks, ways))
    if shapes not in learner.verified:
        verify(learner, one(tasks, 0), engine, None if keys is None else keys[0], ways)
        learner.verified.add(shapes)


def first_time(learner: Learner, tasks: Task, ways: int | None) -> bool:
    """Return whether values of these tasks should be checked: on the processor always, elsewhere once per shape.

    Looking at a value makes the host wait for the device.
    """
    if learner.device.type == "cpu":
        return True
    key = ("checked", shapes_of(tasks, ways))
    known = key in learner.tried
    learner.tried[key] = True
    return not known


def _inner(bind: Callable[[Any], BoundTask], stack: Any, layer: str | None) -> Inner:
    """Return the inner loop of the first task that runs: of the whole model, or of its head on the body's features."""
    bound = bind(tree_map(lambda leaf: leaf[0], stack))
    if layer is None:
        return bound.inner()
    head = FrozenBody(bound, layer)
    return head.inner(head.features({}))


def step_weights(learner: Learner, phase: Phase, device: torch.device) -> Tensor | None:
    """Return the step weights of a phase as a tensor ``(T,)``, or ``None`` if only the last step counts.

    Raises:
        UsageError: if there is not one weight per step.
    """
    if phase.step_weights is None:
        return None
    if len(phase.step_weights) != learner.steps:
        given = len(phase.step_weights)
        raise UsageError(f"step_weights needs one number per inner step ({learner.steps}), not {given}")
    return torch.tensor(list(phase.step_weights), dtype=learner.dtype, device=device)
