"""Measure a learner on tasks, before and after every inner step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from rbml.autodiff import Shard
from rbml.data.targets import Metric
from rbml.data.targets.classes import ACCURACY
from rbml.devices import placed
from rbml.inner import step
from rbml.learner.apart import apart
from rbml.learner.binding import BoundTask, Statistics
from rbml.learner.checks import check_tasks, explained
from rbml.learner.frozen import FrozenBody, frozen_body
from rbml.tasks import Task
from rbml.tasks.base import count, one

if TYPE_CHECKING:
    from rbml.learner.learner import Learner


class Evaluation(NamedTuple):
    """The results of every task, before and after each inner step.

    Attributes:
        loss: query loss, ``(B, T + 1)``, or ``(B, 1)`` if only the last step was measured.
        prediction: query predictions after the last step, ``(B, n, ...)``.
        metrics: each metric by name, of the same shape as ``loss``.
    """

    loss: Tensor
    prediction: Tensor
    metrics: dict[str, Tensor]

    @property
    def accuracy(self) -> Tensor | None:
        """Share of right query predictions; ``None`` if it was not measured, as for real values."""
        return self.metrics.get("accuracy")


def usual_metrics(y: Tensor, prediction: Tensor) -> tuple[Metric, ...]:
    """Return accuracy where the targets are one class per example, and nothing elsewhere.

    Args:
        y: the targets of one task, ``(n, ...)``.
        prediction: for them, ``(n, ...)``.
    """
    classes = y.dtype == torch.int64 and y.dim() == 1 and prediction.dim() == 2
    return (ACCURACY,) if classes else ()


def measured(
    bound: BoundTask, layer: str | None, metrics: Sequence[Metric] | None, steps: int, each_step: bool
) -> dict[str, Any]:
    """Take the inner steps of one task, and measure the result after them (or after each of them).

    Args:
        bound: the task.
        layer: the name of the head if the body need run only once (:func:`rbml.learner.frozen.frozen_body`).
        metrics: what to measure; ``None`` means the usual metrics of the targets.
        steps: how many inner steps.
        each_step: whether to measure before and after every step, or only after the last one.
    """
    if layer is not None:
        body = FrozenBody(bound, layer)
        bound = body.on(body.features({}))
    inner, carry, query = bound.inner(), bound.start({}), bound.task.query
    losses, rows = [], []
    for t in range(steps + 1):
        if each_step or t == steps:
            loss, prediction = bound.measure(carry.theta, {}, t)
            metrics = usual_metrics(query.y, prediction) if metrics is None else metrics
            losses.append(loss)
            rows.append({metric.name: metric.of(prediction, query) for metric in metrics})
        if t < steps:
            _, carry = step(inner, carry, {}, t)
    found = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return {"loss": torch.stack(losses), "prediction": prediction, "metrics": found}


def evaluate(
    learner: Learner,
    tasks: Task,
    statistics: Statistics | None,
    steps: int | None,
    ways: int | None,
    each_step: bool,
    metrics: Sequence[Metric] | None,
    shard: Shard,
) -> Evaluation:
    """Adapt to every task of a stack and measure the result; arguments as in :meth:`rbml.Learner.evaluate`."""
    ways = learner.ways if ways is None else ways
    steps = learner.steps if steps is None else steps
    tasks, predict = placed(tasks, learner.device), learner.predict(ways)
    check_tasks(tasks, ways, steps, learner.dtype, predict)
    first = one(tasks, 0)
    bound = learner.bind(first, statistics, ways)
    layer = frozen_body(bound, None, learner.tried)

    def measure(given: tuple[Any, Tensor]) -> dict[str, Any]:
        task, key = given
        return measured(replace(bound, task=task, key=key), layer, metrics, steps, each_step)

    keys = shard.own(torch.arange(shard.count(count(tasks)))).to(learner.device)
    with torch.no_grad(), explained(predict, learner.loss, (first.support, first.query)):
        separately = learner.over_tasks.one_by_one or apart(learner, tasks, predict, ways)
        return Evaluation(**learner.over_tasks.each(measure, (tasks, keys), separately))
