"""The best learners of a run, by their validations, and the mean of what they predict.

Antoniou et al. 2019 (MAML++, arXiv:1810.09502) report the mean prediction of the five best checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from rbml.autodiff import WHOLE, Shard
from rbml.data.targets import Metric
from rbml.devices import placed
from rbml.errors import UsageError
from rbml.learner import Evaluation, Execution, Learner, Statistics
from rbml.tasks import Task


@dataclass(frozen=True)
class Ranking:
    """The best validations of a run.

    Attributes:
        size: how many are kept; with one there is nothing to rank, and none is.
        metric: by which they are compared.
        places: their outer steps and values, the best first; of equal ones the first to come is the better one.
    """

    size: int
    metric: Metric
    places: tuple[tuple[int, float], ...] = ()

    @staticmethod
    def restored(size: int, metric: Metric, saved: Mapping[str, Any]) -> Ranking:
        """Return the ranking that a checkpoint holds; an empty one where it holds none."""
        return Ranking(size, metric, tuple((step, value) for step, value in saved.get("ranking", [])))

    @property
    def steps(self) -> list[int]:
        """The outer steps of the best validations."""
        return [step for step, _ in self.places]

    def including(self, step: int, value: float) -> Ranking:
        """Return the ranking after one more validation; one that is not a number is never among the best."""
        if self.size == 1 or value != value:
            return self
        sign = -1 if self.metric.better == "higher" else 1
        places = sorted([*self.places, (step, value)], key=lambda place: (sign * place[1], place[0]))
        return replace(self, places=tuple(places[: self.size]))

    def saved(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"ranking": [list(place) for place in self.places]} if self.places else {}


@dataclass(frozen=True)
class Ensemble:
    """Several learners, whose predicted probabilities are averaged.

    It is measured as a learner is, after the last inner step.

    Attributes:
        learners: of the same model, at least two.

    Raises:
        UsageError: for fewer than two learners.
    """

    learners: Sequence[Learner]

    def __post_init__(self) -> None:
        """Refuse what has no mean."""
        if len(self.learners) < 2:
            raise UsageError(f"an ensemble needs at least 2 learners, not {len(self.learners)}")

    @property
    def execution(self) -> Execution:
        """How the work is run: as by the first learner."""
        return self.learners[0].execution

    @property
    def device(self) -> torch.device:
        """The device of the first learner: that of all."""
        return self.learners[0].device

    @property
    def model(self) -> nn.Module:
        """The model of the first learner."""
        return self.learners[0].model

    def evaluate(
        self,
        tasks: Task,
        statistics: Statistics | None = None,
        steps: int | None = None,
        ways: int | None = None,
        metrics: Sequence[Metric] = (),
        shard: Shard = WHOLE,
    ) -> Evaluation:
        """Let each learner adapt to every task, and measure the mean of their probabilities.

        Args:
            tasks: a stack of tasks of classes.
            statistics: as in :meth:`rbml.Learner.evaluate`, as the next three.
            steps: how many inner steps.
            ways: how many classes.
            metrics: what to measure.
            shard: which tasks these are.

        Returns:
            One value per task; the prediction is the logarithm of the mean probabilities.

        Raises:
            UsageError: if the targets are not classes.
        """
        if tasks.query.y.is_floating_point():
            raise UsageError("an ensemble averages the probabilities of classes, and these targets are real values")
        tasks = placed(tasks, self.device)
        found = [one.evaluate(tasks, statistics, steps, ways, False, (), shard).prediction for one in self.learners]
        mean = torch.stack([prediction.softmax(-1) for prediction in found]).mean(0).log()
        right = -mean.gather(-1, tasks.query.y[..., None])[..., 0]
        counts = tasks.query.mask.get("example", torch.ones_like(right)).to(right.dtype)
        loss = torch.where(counts > 0, right, 0).sum(-1) / counts.sum(-1)
        values = {metric.name: torch.func.vmap(metric.of)(mean, tasks.query)[:, None] for metric in metrics}
        return Evaluation(loss[:, None], mean, values)
