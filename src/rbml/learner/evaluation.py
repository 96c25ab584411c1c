"""How good a learner is on tasks: before and after every inner step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbml.data.targets import Metric
from rbml.data.targets.classes import ACCURACY
from rbml.inner import step
from rbml.learner.binding import BoundTask
from rbml.learner.frozen import FrozenBody


class Evaluation(NamedTuple):
    """What every task came to, before and after each inner step.

    Attributes:
        loss: query loss, ``(B, T + 1)``, or ``(B, 1)`` where only the last step was measured.
        prediction: query predictions after the last step, ``(B, n, ...)``.
        metrics: by name, of the same shape as ``loss``.
    """

    loss: Tensor
    prediction: Tensor
    metrics: dict[str, Tensor]

    @property
    def accuracy(self) -> Tensor | None:
        """Share of right query predictions; ``None`` where it was not measured, as for real values."""
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
    """Take the inner steps of one task, and measure it on the way.

    Args:
        bound: the task.
        layer: the head, where the body can run once (:func:`rbml.learner.frozen.frozen_body`).
        metrics: what to measure; ``None`` is what is usual for the targets.
        steps: how many inner steps.
        each_step: whether to measure before and after every one, or after the last alone.
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
