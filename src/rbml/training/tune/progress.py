"""Tuning as it goes on: which way, how long, what happened, and how it is saved and taken up again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.training import files
from rbml.training.tune.runs import Runs
from rbml.training.tune.scouting import Place, scouted
from rbml.training.tune.search import Descent, How, online, whole
from rbml.tree import Tree

SHARE = 0.75
"""Of the time, for changing phi; the rest is for validating the candidates."""

SCOUTED = 0.15
"""Of the time, at most, for finding out where to begin."""

TRIAL = 20
"""Steps of a run that are timed, to find out how many changes there is time for."""


class Progress(NamedTuple):
    """How far tuning has come.

    Attributes:
        seconds: used so far.
        changes: of phi.
        loss: the validation loss of the last runs.
        phi: with which they were made.
    """

    seconds: float
    changes: int
    loss: float
    phi: Tree


Watch = Callable[[Progress], None]


@dataclass(frozen=True)
class Search:
    """The part of :func:`tune` that changes phi; arguments as there."""

    runs: Runs
    seconds: float
    starts: int
    how: How
    lr: float
    seed: int
    state: str | Path | None
    watch: Watch | None
    asked: Callable[[], bool]
    clock: Callable[[], float]

    def run(self) -> tuple[list[Progress], str, bool]:
        """Return what happened, the way that was taken, and whether it was interrupted."""
        descent, history = Descent(self.runs.phi(), self.lr), list[Progress]()
        path = None if self.state is None else Path(self.state)
        if path is not None and path.is_file():
            history = _restored(path, descent)
        before = history[-1].seconds if history else 0.0
        began = self.clock() - before
        if not history:
            descent = self._begun(descent, history, began)
        way, changes = self._way(descent, len(history))
        stopped = False
        while self.clock() - began < SHARE * self.seconds and not stopped:
            change = next(changes, None)
            if change is None:  # the run has ended: another one
                changes = online(self.runs, descent, self.seed + len(history) + 1)
                continue
            done = history[-1].changes if history else 0
            history.append(Progress(self.clock() - began, done + 1, change.loss, change.before))
            descent.pace(self.lr * max(0.1, 1 - history[-1].seconds / (SHARE * self.seconds)))
            if self.watch is not None:
                self.watch(history[-1])
            if path is not None:
                _saved(path, descent, history)
            stopped = self.asked()
        final = {name: leaf.detach().clone() for name, leaf in descent.leaves.items()}
        done, loss = (history[-1].changes, history[-1].loss) if history else (0, 0.0)
        history.append(Progress(self.clock() - began, done, loss, final))
        return history, way, stopped

    def _begun(self, descent: Descent, history: list[Progress], began: float) -> Descent:
        """Return the descent from the best place that some runs without derivatives find; the start is remembered."""
        seeds = range(self.starts * self.seed * 1000, self.starts * (self.seed * 1000 + 1))
        first: list[float] = []

        def enough() -> bool:
            first.append(self.clock())  # the first place is done: compiling does not count
            return first[-1] - first[0] > SCOUTED * self.seconds

        place, phi, losses = scouted(self.runs, seeds, enough)
        if place == Place(0, False):
            return descent
        history.append(Progress(self.clock() - began, 0, losses[Place(0, False)], self.runs.phi()))
        return Descent(phi, self.lr)

    def _way(self, descent: Descent, done: int) -> tuple[str, Any]:
        """Return the way to take, and its changes; ``auto`` times a few steps of a run without derivatives."""
        if self.how != "auto":
            way = self.how
        else:
            short = replace(self.runs, learner=_shortened(self.runs.learner, TRIAL))
            began = self.clock()
            short.judged(self.runs.phi(), range(self.starts))
            plain = (self.clock() - began) / TRIAL * self.runs.learner.steps
            price = 4.0 * plain if self.runs.learner.compiled is None else 0.6 * plain
            way = "whole" if SHARE * self.seconds > 8 * price else "online"
        if way == "whole":
            return way, whole(self.runs, descent, self.starts, done + self.seed * 1000)
        return way, online(self.runs, descent, self.seed)


def _shortened(learner: Learner, steps: int) -> Learner:
    """Return the learner with fewer steps, operator by operator."""
    short = copy.copy(learner)
    short.steps, short.compiled = min(steps, learner.steps), None
    return short


def _saved(path: Path, descent: Descent, history: list[Progress]) -> None:
    files.save(path, "tuning", {"descent": descent.state(), "history": [list(one) for one in history]})


def _restored(path: Path, descent: Descent) -> list[Progress]:
    content = files.load(path, "tuning")
    if content.get("descent", {}).get("leaves", {}).keys() != descent.leaves.keys():
        raise UsageError(f"{path} was begun with another strategy or version: remove it, and begin anew")
    descent.restore(content["descent"])
    return [Progress(*one) for one in content["history"]]
