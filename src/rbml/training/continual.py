r"""Measure learners on streams: what they know of all classes seen so far, and what they have forgotten.

A stream is measured at several moments, its *marks*: after the first G classes, and so on. With :math:`R_{ij}` the
accuracy at mark i on the classes that came between marks j - 1 and j, among all classes seen by then:

- accuracy at mark i: the mean over the queries of all classes seen;
- retained accuracy: that at the last mark;
- learning accuracy: the mean of :math:`R_{jj}`: how well classes are known when they have just been learned;
- backward transfer (BWT): the mean over j < J of :math:`R_{Jj} - R_{jj}`; negative is forgetting (Lopez-Paz and Ranzato
  2017, arXiv:1706.08840), and also that more classes compete: class means, which forget nothing, show how much of it;
- forward transfer: what the earlier part of a stream did for learning the classes after it. The usual one, the accuracy
  on a class before it comes, is 0 here, because only classes seen so far are predicted. Instead: the accuracy on the
  classes between marks j - 1 and j, among these alone, right after they came, less that of the same learner if the
  stream had begun with them; the mean over j > 1 (as in Wolczyk et al. 2021, arXiv:2105.10919, with the accuracy after
  the steps in place of the area under the curve). Class means have 0, a shared covariance (LDA) may have more.

Shapes: B streams, T steps, q queries of a stream, J marks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
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
from rbml.tasks import Replay
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
        among: whether each query is predicted right at its mark ``since`` among the classes of this mark alone, and
            whether it is if the stream begins with them, ``(B, 2, q)``; ``None`` if that was not measured.
    """

    marks: tuple[int, ...]
    right: Tensor
    since: Tensor
    among: Tensor | None = None

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

    def forward(self) -> Score:
        """Return the forward transfer; not a number for one mark.

        Raises:
            UsageError: if it was not measured.
        """
        if self.among is None:
            raise UsageError("forward transfer was not measured: use follow(..., forward=True)")
        later = range(1, len(self.marks))
        gain = self.among[:, 0].double() - self.among[:, 1].double()
        found = [(gain * (self.since == mark)).sum(1) / (self.since == mark).sum(1) for mark in later]
        return Score.of(torch.stack(found).mean(0) if found else torch.full((len(self.right),), math.nan))

    def _of(self, mark: int, which: Tensor) -> Tensor:
        """Return the share of right predictions at a mark, among some queries of each stream, ``(B,)``."""
        return (self.right[:, mark].double() * which).sum(1) / which.sum(1)


def follow(learner: Learner, streams: Any, marks: Sequence[int], forward: bool = False) -> StreamScores:
    """Let a learner go through streams, and measure it after so many classes.

    A learner without inner steps, whose head is made from examples (class means, LDA, ridge), makes it from all
    examples up to each mark; the others take a step per batch. Only classes seen so far can be predicted.

    Args:
        learner: the learner; its number of steps does not matter, a stream is followed to its end.
        streams: a stack of streams or of streams with a memory, classes in the order of their local labels.
        marks: after how many classes, increasing; the last one may be the number of classes of the stream.
        forward: measure forward transfer too, which takes as many steps again.

    Raises:
        UsageError: for marks that do not increase, or are more classes than the stream has; if a head is made from
            examples, and the body does not stay as it is; or for forward transfer with a memory.
    """
    streams = placed(streams, learner.device)
    classes = int(streams.query.y.max()) + 1
    marks = tuple(marks)
    if not marks or list(marks) != sorted(set(marks)) or not 1 <= marks[0] <= marks[-1] <= classes:
        raise UsageError(f"marks are increasing numbers of classes, at most {classes} in these streams, not {marks}")
    if forward and isinstance(streams, Replay):
        raise UsageError("forward transfer needs streams without a memory, which would hold the classes before a mark")
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
        spans = [(0, mark) for mark in marks]
        anew = list(pairwise((0, *marks))) if forward else []
        along = _growing(bound, spans + anew) if grows else _stepping(bound, _ends(streams, marks), forward)
        logits, others = along[: len(marks)], along[len(marks) :]
        right = [_right(row, task.query, *span) for row, span in zip(logits, spans, strict=True)]
        if forward:
            right += [_of_span(rows, task.query, anew) for rows in (logits, others)]
        return torch.stack(right)

    with torch.no_grad():
        keys = torch.arange(count(streams), device=learner.device)
        found = learner.over_tasks.each(single, (streams, keys)).cpu()
    right, among = found[:, : len(marks)], found[:, len(marks) :]
    since = torch.bucketize(streams.query.y.cpu().contiguous(), bounds - 1)
    return StreamScores(marks, right, since, among if forward else None)


def _bound(learner: Learner, task: Any, key: Tensor | None, classes: int) -> BoundTask:
    """Return a stream bound to the learner, with as many steps as it has: schedules end with it."""
    bound = learner.bind(task, "inductive" if learner.statistics != "running" else "running", classes, None, key)
    return replace(bound, plan=replace(bound.plan, steps=len(task.steps.y)))


def _ends(streams: Any, marks: Sequence[int]) -> list[int]:
    """Return the step before which each mark lies: the first that sees a later class."""
    total, classes = streams.steps.y.shape[1], int(streams.query.y.max()) + 1
    first = arrivals(one(streams, 0), classes).tolist()
    return [first[mark] if mark < classes else total for mark in marks]


def _stepping(bound: BoundTask, ends: Sequence[int], anew: bool) -> list[Tensor]:
    """Return the query predictions at each mark of a learner that takes steps.

    Args:
        bound: the stream.
        ends: the step at which each mark lies.
        anew: whether to add those of the same learner if it begins at the mark before.
    """
    inner, carry, start, found, others = bound.inner(), bound.start({}), 0, [], []
    for end in ends:
        carry = roll(inner, carry, {}, start, end)
        found.append(bound.measure(carry.theta, {}, end)[1])
        if anew:  # the first part of a stream is begun anew anyway
            begun = roll(inner, bound.start({}), {}, start, end) if start else carry
            others.append(bound.measure(begun.theta, {}, end)[1])
        start = end
    return found + others


def _growing(bound: BoundTask, spans: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the query predictions of a head that is made from the examples of some classes, first and after last."""
    layer = head_layer(bound.plan.model, bound.plan.head)
    support, theta = bound.task.support, bound.start({}).theta
    found = []
    for first, last in spans:
        seen = (support.y >= first) & (support.y < last) & support.mask.get("example", True)
        so_far = support._replace(mask={"example": seen})
        features = Features(so_far.x, so_far.y, len(theta[f"{layer}.weight"]), so_far.mask["example"])
        strategy = bound.plan.strategy
        weight, bias = strategy.head(
            theta, {name[4:]: leaf for name, leaf in bound.own.items() if name[:4] == "phi."}, features
        )
        found.append(bound.task.query.x @ weight.T + bias)
    return found


def _right(logits: Tensor, query: Batch, first: int, last: int) -> Tensor:
    """Return whether each query is predicted right among the classes from the first to before the last, ``(q,)``."""
    classes = torch.arange(logits.shape[1], device=logits.device)
    known = (classes >= first) & (classes < last)
    return torch.where(known, logits, -torch.inf).argmax(1) == query.y


def _of_span(logits: Sequence[Tensor], query: Batch, spans: Sequence[tuple[int, int]]) -> Tensor:
    """Return whether each query is predicted right among the classes of its own span, ``(q,)``."""
    found = [_right(row, query, *span) for row, span in zip(logits, spans, strict=True)]
    return torch.stack(found).any(0)  # outside its span no query is right


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
