"""The run along which a sweep goes back: all carries, or some of them with the other steps taken again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from torch import Tensor

from rbml.autodiff.alone import Pull, gradient_and_pull
from rbml.inner import Carry, Inner, begin, pieces, roll, step, steps
from rbml.tree import Tree


class SavedStep(NamedTuple):
    """One step, or several that are one piece of work, as the backward sweep sees it.

    Attributes:
        t: the number of the (first) step.
        grads: its inner gradient; empty for several steps.
        carry: the carry before it.
        pull: from v to the derivatives of <grads, v> by theta and m, if the graph was kept; else ``None``.
        length: how many steps.
    """

    t: int
    grads: Tree
    carry: Carry
    pull: Pull | None = None
    length: int = 1


def _nothing(carry: Carry) -> Tree:
    return {}


class Trajectory(NamedTuple):
    """A run that was rolled forward, and its steps in reverse order.

    Attributes:
        inner: the steps that were taken; a store that rounds changes them.
        last: the carry after the last step.
        back: the steps from the last to the first, as an iterator that can be used once.
        report: from the recovered first carry to the store's entries of ``info``.
    """

    inner: Inner
    last: Carry
    back: Iterator[SavedStep]
    report: Callable[[Carry], Tree] = _nothing


Store = Callable[[Inner, Tree, int], Trajectory]
"""``(inner, m, first) -> Trajectory``: how a run is kept from step ``first`` on."""


def everything(inner: Inner, m: Tree, first: int, keep: int = 0) -> Trajectory:
    """Keep all T carries and inner gradients, and the graphs of the last ``keep`` gradients."""
    return _in_segments(inner, m, first, keep, max(inner.steps - first, 1))


def segments(inner: Inner, m: Tree, first: int, keep: int = 0) -> Trajectory:
    r"""Keep the carries at the starts of segments of :math:`\lceil\sqrt{T}\rceil` steps and take each segment again.

    Memory: about :math:`\sqrt T` carries, and as many carries and inner gradients of one segment. Time: one more roll.
    Each segment has the graphs of its last ``keep`` gradients when the sweep enters it.
    Source: Griewank 1992, Chen et al. 2016 (arXiv:1604.06174), there for activations.
    """
    return _in_segments(inner, m, first, keep, max(math.isqrt(max(inner.steps - first - 1, 0)) + 1, 1))


def _in_segments(inner: Inner, m: Tree, first: int, keep: int, length: int) -> Trajectory:
    length = math.ceil(length / inner.block) * inner.block  # segments of whole pieces
    carry = roll(inner, begin(inner, m), m, stop=first)
    starts: list[tuple[int, Carry]] = []
    at = first
    while at + length < inner.steps:
        starts.append((at, carry))
        carry = roll(inner, carry, m, start=at, stop=at + length)
        at += length
    stops, last = _taken(inner, carry, m, at, inner.steps, keep)  # the last segment is needed first: it is kept at once

    def back() -> Iterator[SavedStep]:
        while stops:
            yield stops.pop()
        while starts:
            first_of_segment, carry = starts.pop()
            again, _ = _taken(inner, carry, m, first_of_segment, first_of_segment + length, keep)
            while again:
                yield again.pop()

    return Trajectory(inner, last, back())


def _taken(inner: Inner, carry: Carry, m: Tree, start: int, stop: int, keep: int) -> tuple[list[SavedStep], Carry]:
    """Take steps and keep each, the last ``keep`` of them with their graphs."""
    stops: list[SavedStep] = []
    for t, count in pieces(inner, start, stop):
        if count > 1:
            after = steps(inner, carry, m, t, count)
            stops.append(SavedStep(t, {}, carry, length=count))
        elif t < stop - keep:
            grads, after = step(inner, carry, m, t)
            stops.append(SavedStep(t, grads, carry))
        else:
            objective = partial(_objective, inner, m, t)
            grads, pull = gradient_and_pull(objective, carry.theta, inner.entering(m, "objective"))
            after = inner.update(grads, carry, m, t)
            stops.append(SavedStep(t, grads, carry, pull))
        carry = after
    return stops, carry


def _objective(inner: Inner, m: Tree, t: int, theta: Tree, seen: Tree) -> Tensor:
    return inner.objective(theta, m | seen, t)
