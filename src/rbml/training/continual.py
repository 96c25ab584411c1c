r"""Measure learners on streams: what they know of all classes seen so far, and what they have forgotten.

A stream is measured at several moments, its *marks*: after the first G classes, and so on. With :math:`R_{ij}` the
accuracy at mark i on the classes that came between marks j - 1 and j, among all classes seen by then:

- accuracy at mark i: the mean over the queries of all classes seen;
- retained accuracy: that at the last mark;
- learning accuracy: the mean of :math:`R_{jj}`: how well classes are known when they have just been learned;
- backward transfer (BWT): the mean over j < J of :math:`R_{Jj} - R_{jj}`; negative is forgetting (Lopez-Paz and Ranzato
  2017, arXiv:1706.08840), and also that more classes compete: class means, which forget nothing, show how much of it.

Shapes: B streams, T steps, q queries of a stream, J marks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rbml.data.batch import Batch
from rbml.devices import placed
from rbml.errors import UsageError
from rbml.inner import roll
from rbml.learner import Learner
from rbml.learner.binding import BoundTask, head_layer
from rbml.learner.frozen import FrozenBody, frozen_body
from rbml.strategy import Features
from rbml.tasks.base import arrivals, count, one
from rbml.training.evaluator import Score

MOST = 12
"""By how many values a grid of rates is extended at most."""


@dataclass(frozen=True)
class StreamScores:
    """What a learner knows of streams, by mark.

    Attributes:
        marks: after how many classes it was measured, J numbers.
        right: whether each query is predicted right at each mark, ``(B, J, q)``.
        since: the mark at which the class of each query has been seen, ``(B, q)``.
    """

    marks: tuple[int, ...]
    right: Tensor
    since: Tensor

    def accuracy(self) -> list[Score]:
        """Return the accuracy over all classes seen, at each mark, with intervals over streams."""
        return [Score.of(self._of(mark, self.since <= mark)) for mark in range(len(self.marks))]

    def retained(self) -> Score:
        """Return the accuracy over all classes at the end."""
        return self.accuracy()[-1]

    def learning(self) -> Score:
        """Return the accuracy on classes that have just been learned."""
        found = [self._of(mark, self.since == mark) for mark in range(len(self.marks))]
        return Score.of(torch.stack(found).mean(0))

    def backward(self) -> Score:
        """Return the backward transfer: what the rest of a stream did to earlier classes; not a number for one mark."""
        last = len(self.marks) - 1
        found = [self._of(last, self.since == mark) - self._of(mark, self.since == mark) for mark in range(last)]
        return Score.of(torch.stack(found).mean(0) if found else torch.full((len(self.right),), math.nan))

    def _of(self, mark: int, which: Tensor) -> Tensor:
        """Return the share of right predictions at a mark, among some queries of each stream, ``(B,)``."""
        return (self.right[:, mark].double() * which).sum(1) / which.sum(1)


def follow(learner: Learner, streams: Any, marks: Sequence[int]) -> StreamScores:
    """Let a learner go through streams, and measure it after so many classes.

    A learner without inner steps, whose head is made from examples (class means, LDA, ridge), makes it from all
    examples up to each mark; the others take a step per batch. Only classes seen so far can be predicted.

    Args:
        learner: the learner; its number of steps does not matter, a stream is followed to its end.
        streams: a stack of streams or of streams with a memory, classes in the order of their local labels.
        marks: after how many classes, increasing; the last one may be the number of classes of the stream.

    Raises:
        UsageError: for marks that do not increase, or are more classes than the stream has; or if a head is made from
            examples, and the body does not stay as it is.
    """
    streams = placed(streams, learner.device)
    classes = int(streams.query.y.max()) + 1
    marks = tuple(marks)
    if not marks or list(marks) != sorted(set(marks)) or not 1 <= marks[0] <= marks[-1] <= classes:
        raise UsageError(f"marks are increasing numbers of classes, at most {classes} in these streams, not {marks}")
    bounds = torch.tensor(marks)
    layer = frozen_body(_bound(learner, one(streams, 0), None, classes), None, learner.tried)
    grows = learner.strategy.start is not None and learner.steps == 0
    if grows and layer is None:
        raise UsageError("a head that grows with a stream needs a body that stays as it is: use adapt='head', no gates")

    def single(given: tuple[Any, Tensor]) -> Tensor:
        task, key = given
        bound = _bound(learner, task, key, classes)
        if layer is not None:
            body = FrozenBody(bound, layer)
            bound = body.on(body.features({}))
        logits = _growing(bound, marks) if grows else _stepping(bound, _ends(streams, marks))
        return torch.stack([_right(row, task.query, mark) for row, mark in zip(logits, marks, strict=True)])

    with torch.no_grad():
        keys = torch.arange(count(streams), device=learner.device)
        right = learner.over_tasks.each(single, (streams, keys)).cpu()
    return StreamScores(marks, right, torch.bucketize(streams.query.y.cpu(), bounds - 1))


def _bound(learner: Learner, task: Any, key: Tensor | None, classes: int) -> BoundTask:
    """Return a stream bound to the learner, with as many steps as it has: schedules end with it."""
    bound = learner.bind(task, "inductive" if learner.statistics != "running" else "running", classes, None, key)
    return replace(bound, plan=replace(bound.plan, steps=len(task.steps.y)))


def _ends(streams: Any, marks: Sequence[int]) -> list[int]:
    """Return the step before which each mark lies: the first that sees a later class."""
    total, classes = streams.steps.y.shape[1], int(streams.query.y.max()) + 1
    first = arrivals(one(streams, 0), classes).tolist()
    return [first[mark] if mark < classes else total for mark in marks]


def _stepping(bound: BoundTask, ends: Sequence[int]) -> list[Tensor]:
    """Return the query predictions at each mark of a learner that takes steps."""
    inner, carry, start, found = bound.inner(), bound.start({}), 0, []
    for end in ends:
        carry = roll(inner, carry, {}, start, end)
        found.append(bound.measure(carry.theta, {}, end)[1])
        start = end
    return found


def _growing(bound: BoundTask, marks: Sequence[int]) -> list[Tensor]:
    """Return the query predictions at each mark of a head that is made from the examples so far."""
    layer = head_layer(bound.plan.model, bound.plan.head)
    support, theta = bound.task.support, bound.start({}).theta
    found = []
    for mark in marks:
        so_far = support._replace(mask={"example": (support.y < mark) & support.mask.get("example", True)})
        features = Features(so_far.x, so_far.y, len(theta[f"{layer}.weight"]), so_far.mask["example"])
        strategy = bound.plan.strategy
        weight, bias = strategy.head(
            theta, {name[4:]: leaf for name, leaf in bound.own.items() if name[:4] == "phi."}, features
        )
        found.append(bound.task.query.x @ weight.T + bias)
    return found


def _right(logits: Tensor, query: Batch, seen: int) -> Tensor:
    """Return whether each query is predicted right among the classes seen, ``(q,)``."""
    known = torch.arange(logits.shape[1], device=logits.device) < seen
    return torch.where(known, logits, -torch.inf).argmax(1) == query.y


@dataclass(frozen=True)
class Chosen:
    """A number that was chosen by validation.

    Attributes:
        value: the best one.
        score: its validation accuracy at the last mark.
        tried: every value with its accuracy, increasing.
        inside: whether both neighbours of the best one were tried and are worse, so that it is not at an edge.
    """

    value: float
    score: float
    tried: tuple[tuple[float, float], ...]
    inside: bool


def choose(score: Callable[[float], float], grid: Sequence[float]) -> Chosen:
    """Choose a rate, extending its grid by its own ratio until the best value lies inside.

    Args:
        score: from a rate to its validation accuracy, higher is better; not a number counts as worst.
        grid: at least two increasing values.

    Raises:
        UsageError: for a grid of fewer than two values, or one that does not increase from above zero.

    >>> found = choose(lambda rate: -abs(rate - 0.001), [0.1, 1.0])
    >>> round(found.value, 6), found.inside
    (0.001, True)
    """
    grid = list(grid)
    if len(grid) < 2 or grid[0] <= 0 or grid != sorted(set(grid)):
        raise UsageError(f"a grid needs two or more increasing rates above zero, not {grid}")
    low, high = grid[1] / grid[0], grid[-1] / grid[-2]
    tried = {rate: _or_worst(score(rate)) for rate in grid}
    for _ in range(MOST):
        best = max(tried, key=tried.__getitem__)
        if best == min(tried):
            new = best / low
        elif best == max(tried):
            new = best * high
        else:
            break
        tried[new] = _or_worst(score(new))
    best = max(tried, key=tried.__getitem__)
    return Chosen(best, tried[best], tuple(sorted(tried.items())), min(tried) < best < max(tried))


def _or_worst(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
