"""Validations: how good a learner is on held-out tasks and, beside them, on new tasks of what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rbml.data.targets import Metric
from rbml.learner import Learner
from rbml.recipe import Recipe
from rbml.recipe.streams import SEEN, VALIDATE
from rbml.tasks import TaskSource, generator, task_seeds
from rbml.training.evaluator import Score, draw, groups_of, per_task


@dataclass(frozen=True)
class Best:
    """The best validation so far.

    Attributes:
        step: the outer step at which it was made.
        value: the mean of the metric.
        values: the metric of each validation task, ``(B,)``; ``None`` for a checkpoint that did not keep them.
        waited: how many validations without improvement have followed.
    """

    step: int
    value: float
    values: Tensor | None
    waited: int = 0

    @staticmethod
    def restored(saved: Mapping[str, Any]) -> Best | None:
        """Return the best validation that a checkpoint holds; ``None`` if there was none yet."""
        value = saved["best"]
        if value is None or abs(value) == float("inf"):  # rbml 0.1.0 began with minus infinity
            return None
        return Best(saved.get("best_step", 0), value, saved.get("best_values"), saved.get("waited", 0))

    def saved(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, besides the value itself."""
        kept = {} if self.values is None else {"best_values": self.values}
        return {"best_step": self.step, "waited": self.waited} | kept


@dataclass(frozen=True)
class Validation:
    """What a validation measures.

    Attributes:
        metric: the metric.
        held_out: the validation tasks, the same every time.
        training: where training tasks come from.
        groups: which group each validation task comes from; ``None`` where each counts by itself.
        tasks: how many tasks of the training part are measured.
        seed: the seed by which these are drawn; no training step draws them.
        ways: the classes of a held-out task, which may be fewer than a learner has rows for; ``None`` for real values.
    """

    metric: Metric
    held_out: Any
    training: TaskSource
    groups: list[int] | None
    tasks: int
    seed: int
    ways: int | None = None

    @staticmethod
    def of(training: TaskSource, validation: TaskSource, recipe: Recipe) -> Validation:
        """Return the validation of a recipe."""
        tasks, seed = recipe.outer.validate_tasks, recipe.outer.seed
        held_out = validation.draw(task_seeds(tasks, generator(seed, VALIDATE)))
        groups = groups_of(validation, tasks, seed, VALIDATE)
        ways = getattr(validation, "ways", None)
        return Validation(training.target.metrics[0], held_out, training, groups, tasks, seed, ways)

    def measure(self, learner: Learner) -> Tensor:
        """Return the metric of every validation task, ``(B,)``."""
        return _measured(learner, self.held_out, self.metric, self.ways)

    def seen(self, learner: Learner) -> float:
        """Return the mean over as many tasks of the training part that no training step has drawn.

        The difference to the validation is the gap of generalisation across tasks: both are new tasks, but of these
        classes (or groups) the learner was trained on others.
        """
        ways = getattr(self.training, "ways", None)
        parts = draw(self.training, self.tasks, learner.execution.chunk, self.seed, SEEN)
        return torch.cat([_measured(learner, part, self.metric, ways) for part in parts]).double().mean().item()

    def entry(self, learner: Learner, step: int, best: Best | None) -> tuple[dict[str, float], Best | None]:
        """Return a validation's numbers for the journal, and the best validation including this one.

        The numbers are ``validation``, ``validation_seen``, and after the first one ``behind``: by how much, in the
        mean over the same tasks, the metric is worse than at the best validation, with its 95 % interval.
        """
        values = self.measure(learner)
        found = {"validation": values.double().mean().item(), "validation_seen": self.seen(learner)}
        if best is not None and best.values is not None:
            sign = 1.0 if self.metric.better == "higher" else -1.0
            worse = Score.of(sign * (best.values - values), self.groups)
            found |= {"behind": worse.mean, "behind_interval": worse.interval}
        if self.metric.improves(found["validation"], None if best is None else best.value):
            return found, Best(step, found["validation"], values)
        return found, None if best is None else replace(best, waited=best.waited + 1)  # None: it was not a number


def _measured(learner: Learner, tasks: Any, metric: Metric, ways: int | None) -> Tensor:
    found = learner.evaluate(tasks, ways=ways, each_step=False, metrics=())
    return per_task(metric, found.prediction, tasks.query)
