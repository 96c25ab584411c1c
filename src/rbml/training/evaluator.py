"""How good a learner is: accuracy after every inner step, over many tasks, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from rbml.learner import Learner, Statistics
from rbml.recipe.streams import TEST
from rbml.tasks import Episodes, FewShot, generator, task_seeds

BOTH: tuple[Statistics, ...] = ("transductive", "inductive")


@dataclass(frozen=True)
class Score:
    r"""A mean over tasks.

    Attributes:
        mean: accuracy, 0 to 1.
        interval: half the width of its 95 % interval, :math:`1.96\,s/\sqrt{B}`.
        tasks: B.
    """

    mean: float
    interval: float
    tasks: int

    @staticmethod
    def of(values: Tensor) -> Score:
        """Return the score of one accuracy a task, ``(B,)``."""
        spread = values.double().std().item() if len(values) > 1 else float("nan")
        return Score(values.double().mean().item(), 1.96 * spread / len(values) ** 0.5, len(values))


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the share of right predictions of each task: ``(B, n, C)`` and ``(B, n)`` to ``(B,)``."""
    return (prediction.argmax(-1) == target).float().mean(-1)


def evaluate(
    learner: Learner,
    tasks: FewShot,
    episodes: int,
    seed: int,
    stream: int = TEST,
    steps: int | None = None,
    statistics: tuple[Statistics, ...] = BOTH,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[Statistics, list[Score]]:
    """Measure a learner on tasks, drawn in the same way for every learner that is given the same seed.

    Args:
        learner: the learner.
        tasks: where tasks come from.
        episodes: how many.
        seed: which.
        stream: which stream of random numbers they come from.
        steps: inner steps; the default is the learner's own.
        statistics: whose statistics batch norm uses on the query batch, each in turn.
        advance: called with the number of tasks that are newly done.

    Returns:
        For each kind of statistics, the accuracy before and after each inner step: T + 1 scores.
    """
    kept: dict[Statistics, list[Tensor]] = {which: [] for which in statistics}
    for part in draw(tasks, episodes, learner.execution.chunk, seed, stream):
        for which in statistics:
            kept[which].append(cast(Tensor, learner.evaluate(part, which, steps, tasks.ways).accuracy))
        advance(part.tasks)
    return {which: [Score.of(column) for column in torch.cat(rows).T] for which, rows in kept.items()}


def draw(tasks: FewShot, episodes: int, chunk: int, *key: int) -> Iterator[Episodes]:
    """Yield the ``episodes`` tasks of a key, ``chunk`` at a time: no more than that is in memory."""
    seeds = task_seeds(episodes, generator(*key))
    for start in range(0, episodes, chunk):
        yield tasks.draw(seeds[start : start + chunk])


def leave_out(
    learner: Learner,
    x: Tensor,
    y: Tensor,
    ways: int,
    groups: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Score | None:
    """Classify the examples of a support set after learning from the others: what a user may expect of new ones.

    Each costs one adaptation, so many examples are better left out in groups. A class never leaves out its last one.

    Args:
        learner: the learner.
        x: examples ``(n, ...)``.
        y: labels ``(n,)``.
        ways: classes.
        groups: in how many groups, at least 2, examples are left out in turn; ``None`` leaves out one at a time.
        advance: called with the number of examples that are newly classified.

    Returns:
        The accuracy over the examples whose class has another one, or ``None`` where no class has two.
    """
    counts = torch.bincount(y, minlength=ways)
    candidates = [index for index in torch.argsort(y, stable=True).tolist() if counts[y[index]] > 1]
    if not candidates:
        return None
    groups = min(groups or len(candidates), len(candidates))
    right = []
    for group in range(groups):
        queries = candidates[group::groups]  # in class order, so that a class is spread over the groups
        rest = [index for index in range(len(y)) if index not in set(queries)]
        adapted = learner.adapt(x[rest], y[rest], ways=ways)
        with torch.no_grad():
            right.append((adapted(x[queries]).argmax(1) == y[queries]).float())
        advance(len(queries))
    return Score.of(torch.cat(right))
