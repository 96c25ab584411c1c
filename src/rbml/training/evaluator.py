"""How good a learner is: accuracy after every inner step, over many tasks, with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from rbml.learner import Learner, Statistics
from rbml.tasks import Batch, Episodes, FewShot, generator, task_seeds
from rbml.training.recipe import TEST

_AT_ONCE = 2000  # examples in memory at once while leaving one out
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
    for part in draw(tasks, episodes, learner.chunk, seed, stream):
        for which in statistics:
            kept[which].append(cast(Tensor, learner.evaluate(part, which, steps, tasks.ways).accuracy))
        advance(part.tasks)
    return {which: [Score.of(column) for column in torch.cat(rows).T] for which, rows in kept.items()}


def draw(tasks: FewShot, episodes: int, chunk: int, *key: int) -> Iterator[Episodes]:
    """Yield the ``episodes`` tasks of a key, ``chunk`` at a time: no more than that is in memory."""
    seeds = task_seeds(episodes, generator(*key))
    for start in range(0, episodes, chunk):
        yield tasks.draw(seeds[start : start + chunk])


def leave_one_out(learner: Learner, x: Tensor, y: Tensor, ways: int, most: int = 100) -> Score | None:
    """Classify examples of a support set after learning from all others: what a user may expect of new ones.

    Args:
        learner: the learner.
        x: examples ``(n, ...)``.
        y: labels ``(n,)``.
        ways: classes.
        most: how many examples at most are left out in turn; of more, as many, evenly spread. Each costs one
            adaptation to n - 1 examples.

    Returns:
        The accuracy over the examples whose class has another one, or ``None`` where no class has two.
    """
    counts = torch.bincount(y, minlength=ways)
    left_out = [index for index, label in enumerate(y.tolist()) if counts[label] > 1]
    if not left_out:
        return None
    left_out = [left_out[place * len(left_out) // most] for place in range(most)] if len(left_out) > most else left_out
    right = []
    chunk = max(1, min(learner.chunk, _AT_ONCE // len(y)))
    for start in range(0, len(left_out), chunk):
        queries = left_out[start : start + chunk]
        rest = torch.tensor([[other for other in range(len(y)) if other != index] for index in queries])
        one = torch.tensor(queries)[:, None]
        episodes = Episodes(Batch(x[rest], y[rest]), Batch(x[one], y[one]))
        right.append(cast(Tensor, learner.evaluate(episodes, "inductive", ways=ways).accuracy)[:, -1])
    return Score.of(torch.cat(right))
