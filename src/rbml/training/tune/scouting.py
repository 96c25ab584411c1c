"""Where to begin: a few runs without derivatives at other rates and with a falling schedule.

A hypergradient moves a rate by some 15 % per change, so that one that is wrong by a factor of ten would take all the
time there is. And where steps are so large that runs are chaotic, hypergradients of different starts point anywhere;
with a rate that falls towards the end of the run they agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from rbml.strategy import Hyper, Strategy
from rbml.training.tune.runs import Runs
from rbml.tree import Tree

FACTOR = 3.0
"""Between neighbouring rates that are tried."""

FALL = 2.5
"""The logarithm of how far a falling schedule falls, in a straight line of the logarithm."""

ALIKE = 0.1
"""A falling schedule is taken if its loss is at most by this share above the least one: its runs are calmer."""

FARTHEST = 3
"""Rates up to FACTOR to this power from the start are tried."""


class Place(NamedTuple):
    """A place where tuning may begin: all rates times ``FACTOR ** rate``, and a schedule that falls or not."""

    rate: int
    falls: bool


def scouted(
    runs: Runs, seeds: range, enough: Callable[[], bool] = lambda: False
) -> tuple[Place, Tree, dict[Place, float]]:
    """Return the best place to begin, its phi, and the mean validation loss of every place that was tried.

    The neighbours of the best place are tried until none is better. At the end a falling schedule is preferred
    (:data:`ALIKE`). Where a strategy learns neither a rate nor a
    schedule, nothing but the start is tried.

    Args:
        runs: the training runs; their phi is the place in the middle.
        seeds: of the runs that each place gets.
        enough: asked before every place but the first whether to stop.
    """
    start, strategy = runs.phi(), runs.learner.strategy
    losses: dict[Place, float] = {}

    def tried(place: Place) -> None:
        if place in losses or abs(place.rate) > FARTHEST or (losses and enough()):
            return
        if place != Place(0, False) and _same(moved(start, strategy, place), start):
            return
        loss = runs.judged(moved(start, strategy, place), seeds)["loss"].mean()
        losses[place] = float(loss) if torch.isfinite(loss) else math.inf

    for rate in (0, 1, -1):
        tried(Place(rate, False))
        tried(Place(rate, True))
    best: Place | None = None
    while (better := min(losses, key=losses.__getitem__)) != best:
        best = better
        tried(best._replace(rate=best.rate + 1))
        tried(best._replace(rate=best.rate - 1))
    chosen = preferred(losses)
    return chosen, moved(start, strategy, chosen), losses


def preferred(losses: dict[Place, float]) -> Place:
    """Return the place with the least loss, or the best one whose schedule falls if that is about as good."""
    least = min(losses.values())
    good = [place for place, loss in losses.items() if loss <= least or (place.falls and loss <= (1 + ALIKE) * least)]
    return min(good, key=lambda place: (not place.falls, losses[place]))


def moved(phi: Tree, strategy: Strategy, place: Place) -> Tree:
    """Return phi at another place: every learned ``lr`` without an upper bound, and every learned curve of knots."""
    found = dict(phi)
    for part in strategy.parts:
        hyper: Any = part.hypers.get("lr")
        if isinstance(hyper, Hyper) and hyper.learn and hyper.bounds in ((None, None), (0, None)):
            for name in _named(phi, f"phi.{part.name}.lr"):
                found[name] = hyper.raw(hyper.valid(phi[name]) * FACTOR**place.rate)
        if place.falls and part.origin is not None and part.origin.by == "knots":
            for name in _named(phi, f"phi.{part.name}.curve"):
                found[name] = phi[name] - FALL * torch.linspace(0, 1, len(phi[name])).to(phi[name])
    return found


def _named(phi: Tree, whole: str) -> list[str]:
    return [name for name in phi if name == whole or name.startswith(f"{whole}/")]


def _same(one: Tree, other: Tree) -> bool:
    return all(torch.equal(leaf, other[name]) for name, leaf in one.items())
