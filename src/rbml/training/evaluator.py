"""Evaluate a learner: its metrics after every inner step, over many tasks, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, func

from rbml.autodiff.module import batch_norms
from rbml.data.batch import Batch
from rbml.data.targets import Baseline, Metric
from rbml.devices import CPU, placed
from rbml.learner import Learner, Statistics
from rbml.recipe.streams import TEST
from rbml.tasks import Continual, TaskSource, generator, task_seeds
from rbml.tasks.base import count, one
from rbml.training.ensemble import Ensemble

BOTH: tuple[Statistics, ...] = ("transductive", "inductive")
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantiles of Student's t for 1, 2, ... degrees of freedom."""

SIZES = ("ways", "shots", "queries")
"""The attributes in which a source of tasks has the sizes of its tasks, if it has them."""

Scores = dict[str, list["Score"]]
"""By metric, before and after each inner step: T + 1 scores."""


@dataclass(frozen=True)
class Score:
    r"""A mean over tasks.

    Attributes:
        mean: the mean of the metric.
        interval: half the width of its 95 % interval, :math:`1.96\,s/\sqrt{B}`; where tasks come from G groups (the
            patients of a table), :math:`t_{G-1}\,s/\sqrt{G}` with the standard deviation s of the groups' means and the
            quantile of Student's t: two tasks of one group are not independent.
        tasks: B.
        groups: G; ``None`` where each task counts by itself.
    """

    mean: float
    interval: float
    tasks: int
    groups: int | None = None

    @staticmethod
    def of(values: Tensor, groups: Sequence[int] | None = None) -> Score:
        """Return the score of one value per task, ``(B,)``.

        Args:
            values: of the tasks.
            groups: which group each task comes from; ``None`` where each counts by itself.
        """
        values = values.cpu().double()
        if groups is None:
            spread = values.std().item() if len(values) > 1 else float("nan")
            return Score(values.mean().item(), 1.96 * spread / len(values) ** 0.5, len(values))
        places = torch.tensor(groups)
        means = torch.stack([values[places == group].mean() for group in sorted(set(groups))])
        total = len(means)
        spread = means.std().item() if total > 1 else float("nan")
        quantile = _STUDENT[total - 2] if 2 <= total <= len(_STUDENT) + 1 else 1.96
        return Score(means.mean().item(), quantile * spread / total**0.5, len(values), total)

    def shown(self, unit: str) -> str:
        """Return it as a person writes it, without the unit; shares in per cent, and in words what is no number.

        >>> Score(0.974, 0.003, 600).shown("%"), Score(2.3456, 0.12, 42).shown("points")
        ('97.4 ± 0.3', '2.35 ± 0.12')
        """
        if not math.isfinite(self.mean):
            return "diverged"
        if unit == "%":
            return f"{100 * self.mean:.1f} ± {100 * self.interval:.1f}"
        if not 0 < self.interval < math.inf:
            return f"{self.mean:.3g} ± {self.interval:.2g}"
        # Three digits of the larger one, so that the rows of a table agree; of the interval at least one.
        largest, least = (math.floor(math.log10(size)) for size in (max(abs(self.mean), self.interval), self.interval))
        decimals = min(max(2 - largest, -least, 0), 9)
        return f"{self.mean:.{decimals}f} ± {self.interval:.{decimals}f}"


def sizes_of(tasks: TaskSource) -> dict[str, int]:
    """Return the sizes of a source's tasks, by name, that it has; of a mixture those that all of its sources share.

    The ways of streams are the classes of one stream, also where labels are those of all classes.
    """
    parts = getattr(tasks, "sources", [tasks])
    found = {name: {getattr(part, name, None) for part in parts} for name in SIZES}
    if any(isinstance(part, Continual) for part in parts):
        found["ways"] = {part.classes if isinstance(part, Continual) else getattr(part, "ways", None) for part in parts}
    return {name: size for name, (size, *others) in found.items() if size is not None and not others}


def describe_sizes(sizes: dict[str, Any]) -> str:
    """Return the sizes of tasks as papers write them.

    >>> describe_sizes({"ways": 5, "shots": 1, "queries": 15}), describe_sizes({"shots": 3, "queries": 10})
    ('5-way 1-shot, 15 queries per class', '3-shot, 10 queries')
    """
    head = " ".join(f"{sizes[name]}-{name[:-1]}" for name in ("ways", "shots") if name in sizes)
    noun = "query" if sizes.get("queries") == 1 else "queries"
    queries = f"{sizes['queries']} {noun}{' per class' * ('ways' in sizes)}" if "queries" in sizes else ""
    return ", ".join(part for part in (head, queries) if part)


def describe_steps(steps: int) -> str:
    """Return how many inner steps there are.

    >>> describe_steps(0), describe_steps(1), describe_steps(5)
    ('no inner steps', '1 inner step', '5 inner steps')
    """
    return f"{steps or 'no'} inner step{'s' * (steps != 1)}"


def per_task(metric: Metric, prediction: Tensor, batch: Batch) -> Tensor:
    """Return a metric of each task of a stack, ``(B,)``, from predictions ``(B, n, ...)`` and a batch of all tasks."""
    found: Tensor = func.vmap(metric.of)(prediction, batch)
    return found


def evaluate(
    learner: Learner | Ensemble,
    tasks: TaskSource,
    episodes: int,
    seed: int,
    stream: int = TEST,
    steps: int | None = None,
    statistics: tuple[Statistics, ...] | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[Statistics, Scores]:
    """Measure a learner on tasks, drawn in the same way for every learner that is given the same seed.

    Args:
        learner: the learner, or several, which are measured after the last inner step only.
        tasks: where tasks come from; their target decides what is measured.
        episodes: how many tasks.
        seed: the seed by which they are drawn.
        stream: the stream of random numbers from which they are drawn.
        steps: inner steps; the default is the learner's own.
        statistics: whose statistics batch norm uses on the query batch, each in turn; ``None`` is both, or for a model
            without batch norm ``"inductive"`` alone: there the queries have no say in one another's predictions.
        advance: called with the number of tasks that are newly done.

    Returns:
        For each kind of statistics and each metric of the target, the scores before and after each inner step.

    Raises:
        UsageError: if predictions and targets do not fit, or the tasks do not fit the model.
    """
    metrics = tasks.target.metrics
    statistics = statistics or (BOTH if normalises(learner) else ("inductive",))
    kept: dict[Statistics, dict[str, list[Tensor]]] = {
        which: {metric.name: [] for metric in metrics} for which in statistics
    }
    for part in draw(tasks, episodes, learner.execution.chunk, seed, stream):
        part = placed(part, learner.device)
        for which in statistics:
            found = learner.evaluate(part, which, steps, getattr(tasks, "ways", None), metrics=metrics)
            tasks.target.check(found.prediction[0], one(part.query, 0))
            for name, column in kept[which].items():
                column.append(found.metrics[name])
        advance(count(part))
    groups = groups_of(tasks, episodes, seed, stream)
    return {
        which: {name: [Score.of(step, groups) for step in torch.cat(parts).T] for name, parts in found.items()}
        for which, found in kept.items()
    }


def normalises(learner: Learner | Ensemble) -> bool:
    """Return whether the learner's model has batch norm: only then do the statistics of queries matter."""
    return next(batch_norms(learner.model), None) is not None


def groups_of(tasks: TaskSource, episodes: int, *key: int) -> list[int] | None:
    """Return which group each task of a key comes from; ``None`` where a source has no groups."""
    find: Callable[[Sequence[int]], list[int]] | None = getattr(tasks, "groups_of", None)
    return None if find is None else find(task_seeds(episodes, generator(*key)))


def draw(tasks: TaskSource, episodes: int, chunk: int, *key: int) -> Iterator[Any]:
    """Yield the ``episodes`` tasks of a key, ``chunk`` at a time, so that no more than that are in memory."""
    seeds = task_seeds(episodes, generator(*key))
    for start in range(0, episodes, chunk):
        yield tasks.draw(seeds[start : start + chunk])


def judge(baseline: Baseline, metric: Metric, tasks: Any) -> Tensor:
    """Return a metric of a baseline on each task of a stack, ``(B,)``; every task is predicted by itself."""
    found, tasks = [], placed(tasks, CPU)  # in double precision, which not every device has
    for index in range(count(tasks)):
        task = one(tasks, index)
        found.append(metric.of(baseline(task.support, task.query), task.query))
    return torch.stack(found)
