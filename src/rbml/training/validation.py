"""Validations: how good a learner is on held-out tasks and, beside them, on new tasks of what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rbml.autodiff import WHOLE, Shard
from rbml.data.targets import Metric
from rbml.devices import placed
from rbml.learner import Learner
from rbml.recipe import Recipe
from rbml.recipe.streams import SEEN, VALIDATE
from rbml.tasks import TaskSource, generator, task_seeds
from rbml.training.evaluator import Score, groups_of, per_task
from rbml.training.processes import Processes


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
        held_out: the validation tasks of this process, the same every time.
        training: where training tasks come from.
        groups: which group each validation task comes from; ``None`` where each counts by itself.
        tasks: how many tasks are measured, of either part.
        seed: the seed by which those of the training part are drawn; no training step draws them.
        shard: which tasks this process measures.
        ways: the classes of a held-out task, which may be fewer than a learner has rows for; ``None`` for real values.
    """

    metric: Metric
    held_out: Any
    training: TaskSource
    groups: list[int] | None
    tasks: int
    seed: int
    shard: Shard
    ways: int | None = None

    @staticmethod
    def of(training: TaskSource, validation: TaskSource, recipe: Recipe, processes: Processes) -> Validation:
        """Return the validation of a recipe."""
        tasks, seed = recipe.outer.validate_tasks, recipe.outer.seed
        shard = processes.shard(tasks, recipe.execution.chunk)
        held_out = validation.draw(shard.own(task_seeds(tasks, generator(seed, VALIDATE))))
        groups = groups_of(validation, tasks, seed, VALIDATE)
        ways = getattr(validation, "ways", None)
        return Validation(training.target.metrics[0], held_out, training, groups, tasks, seed, shard, ways)

    def measure(self, learner: Learner) -> Tensor:
        """Return the metric of every validation task, ``(B,)``."""
        held_out = placed(self.held_out, learner.device)
        return self.shard.joined(_measured(learner, held_out, self.metric, self.ways, self.shard)).cpu()

    def seen(self, learner: Learner) -> float:
        """Return the mean over as many tasks of the training part that no training step has drawn.

        The difference to the validation is the gap of generalisation across tasks: both are new tasks, but of these
        classes (or groups) the learner was trained on others.
        """
        ways = getattr(self.training, "ways", None)
        seeds = self.shard.own(task_seeds(self.tasks, generator(self.seed, SEEN)))
        chunk = learner.execution.chunk  # at a time, so that no more than that are in memory
        parts = (
            placed(self.training.draw(seeds[start : start + chunk]), learner.device)
            for start in range(0, len(seeds), chunk)
        )
        found = torch.cat([_measured(learner, part, self.metric, ways, WHOLE) for part in parts])
        return self.shard.joined(found).cpu().double().mean().item()

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


def _measured(learner: Learner, tasks: Any, metric: Metric, ways: int | None, shard: Shard) -> Tensor:
    found = learner.evaluate(tasks, ways=ways, each_step=False, metrics=(), shard=shard)
    return per_task(metric, found.prediction, tasks.query)
