"""Evaluate a learner: its metrics after every inner step, over many tasks, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, func

from rbml.data.batch import Batch, rows
from rbml.data.targets import Baseline, Metric, Target
from rbml.learner import Learner, Statistics
from rbml.recipe.streams import TEST
from rbml.tasks import TaskSource, generator, task_seeds
from rbml.tasks.base import count, one

BOTH: tuple[Statistics, ...] = ("transductive", "inductive")
SIZES = ("ways", "shots", "queries")
"""The attributes in which a source of tasks has the sizes of its tasks, if it has them."""

Scores = dict[str, list["Score"]]
"""By metric, before and after each inner step: T + 1 scores."""


@dataclass(frozen=True)
class Score:
    r"""A mean over tasks.

    Attributes:
        mean: the mean of the metric.
        interval: half the width of its 95 % interval, :math:`1.96\,s/\sqrt{B}`.
        tasks: B.
    """

    mean: float
    interval: float
    tasks: int

    @staticmethod
    def of(values: Tensor) -> Score:
        """Return the score from one value per task, ``(B,)``."""
        spread = values.double().std().item() if len(values) > 1 else float("nan")
        return Score(values.double().mean().item(), 1.96 * spread / len(values) ** 0.5, len(values))

    def shown(self, unit: str) -> str:
        """Return the score as text without the unit; shares are in per cent.

        >>> Score(0.974, 0.003, 600).shown("%"), Score(2.3456, 0.12, 42).shown("points")
        ('97.4 ± 0.3', '2.35 ± 0.12')
        """
        if unit == "%":
            return f"{100 * self.mean:.1f} ± {100 * self.interval:.1f}"
        return f"{self.mean:.3g} ± {self.interval:.2g}"


def sizes_of(tasks: TaskSource) -> dict[str, int]:
    """Return the sizes of a source's tasks by name; those that it does not have are left out."""
    found = {name: getattr(tasks, name, None) for name in SIZES}
    return {name: size for name, size in found.items() if size is not None}


def describe_sizes(sizes: dict[str, Any]) -> str:
    """Return the sizes of tasks as papers write them.

    >>> describe_sizes({"ways": 5, "shots": 1, "queries": 15}), describe_sizes({"shots": 3, "queries": 10})
    ('5-way 1-shot, 15 queries per class', '3-shot, 10 queries')
    """
    head = " ".join(f"{sizes[name]}-{name[:-1]}" for name in ("ways", "shots") if name in sizes)
    queries = f"{sizes['queries']} queries{' per class' * ('ways' in sizes)}" if "queries" in sizes else ""
    return ", ".join(part for part in (head, queries) if part)


def per_task(metric: Metric, prediction: Tensor, batch: Batch) -> Tensor:
    """Return a metric of each task of a stack, ``(B,)``, from predictions ``(B, n, ...)`` and a batch of all tasks."""
    found: Tensor = func.vmap(metric.of)(prediction, batch)
    return found


def evaluate(
    learner: Learner,
    tasks: TaskSource,
    episodes: int,
    seed: int,
    stream: int = TEST,
    steps: int | None = None,
    statistics: tuple[Statistics, ...] = BOTH,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[Statistics, Scores]:
    """Measure a learner on tasks, drawn in the same way for every learner that is given the same seed.

    Args:
        learner: the learner.
        tasks: where tasks come from; their target decides what is measured.
        episodes: how many tasks.
        seed: the seed by which they are drawn.
        stream: the stream of random numbers from which they are drawn.
        steps: inner steps; the default is the learner's own.
        statistics: which statistics batch norm uses on the query batch; each kind is measured in turn.
        advance: called with the number of tasks done since the last call, for a progress bar.

    Returns:
        For each kind of statistics and each metric of the target, the scores before and after each inner step.

    Raises:
        UsageError: if predictions and targets do not fit, or the tasks do not fit the model.
    """
    metrics = tasks.target.metrics
    kept: dict[Statistics, dict[str, list[Tensor]]] = {
        which: {metric.name: [] for metric in metrics} for which in statistics
    }
    for part in draw(tasks, episodes, learner.execution.chunk, seed, stream):
        for which in statistics:
            found = learner.evaluate(part, which, steps, getattr(tasks, "ways", None), metrics=metrics)
            tasks.target.check(found.prediction[0], one(part.query, 0))
            for name, column in kept[which].items():
                column.append(found.metrics[name])
        advance(count(part))
    return {
        which: {name: [Score.of(step) for step in torch.cat(parts).T] for name, parts in found.items()}
        for which, found in kept.items()
    }


def draw(tasks: TaskSource, episodes: int, chunk: int, *key: int) -> Iterator[Any]:
    """Yield the ``episodes`` tasks of a key, ``chunk`` at a time, so that no more than that are in memory."""
    seeds = task_seeds(episodes, generator(*key))
    for start in range(0, episodes, chunk):
        yield tasks.draw(seeds[start : start + chunk])


def judge(baseline: Baseline, metric: Metric, tasks: Any) -> Tensor:
    """Return a metric of a baseline on each task of a stack, ``(B,)``; every task is predicted by itself."""
    found = []
    for index in range(count(tasks)):
        task = one(tasks, index)
        found.append(metric.of(baseline(task.support, task.query), task.query))
    return torch.stack(found)


def leave_out(
    learner: Learner,
    support: Batch,
    target: Target,
    ways: int | None = None,
    groups: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Score | None:
    """Predict examples of a support set after adapting to the others: an estimate of how well new ones are predicted.

    Each example costs one adaptation, so many examples are better left out in groups. The only example of a class is
    never left out.

    Args:
        learner: the learner.
        support: the examples ``(n, ...)``.
        target: its first metric is computed for every example by itself.
        ways: the number of classes; ``None`` for other targets.
        groups: the number of groups, at least 2, in which examples are left out; ``None`` leaves out one at a time.
        advance: called with the number of examples predicted since the last call, for a progress bar.

    Returns:
        The metric over the examples that could be left out, or ``None`` if there are none.
    """
    candidates = _can_be_left_out(support.y)
    if not candidates:
        return None
    metric, total = target.metrics[0], len(support.y)
    groups = min(groups or len(candidates), len(candidates))
    found = []
    for group in range(groups):
        left = candidates[group::groups]  # in class order, so that a class is spread over the groups
        rest = torch.tensor([index for index in range(total) if index not in set(left)])
        adapted = learner.adapt(*rows(support, rest), ways=ways)
        queries = rows(support, torch.tensor(left))
        with torch.no_grad():
            prediction = adapted(queries.x)
        found += [
            metric.of(prediction[at : at + 1], rows(queries, torch.tensor([at]))).double() for at in range(len(left))
        ]
        advance(len(left))
    return Score.of(torch.stack(found))


def _can_be_left_out(y: Tensor) -> list[int]:
    """Return the examples that can be left out: another one must remain, for classes one of the same class."""
    if y.is_floating_point() or y.dim() != 1:
        return list(range(len(y))) if len(y) > 1 else []
    counts = torch.bincount(y)
    return [index for index in torch.argsort(y, stable=True).tolist() if counts[y[index]] > 1]
