"""Bring a kind of input and a kind of target of your own: one small class and one small table each.

    python examples/own_modality_and_target.py [--outer-steps 300]

The inputs are words over the letters a to d; the target is a direction, an angle on the circle, for which squared
errors mean nothing: 359 and 1 degree are neighbours. In every task each letter turns by the same angle, but from
another north. Nothing in rbml is changed: the evaluation, the baselines and the predictor take both from here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml import algorithms
from rbml.data import inputs, targets
from rbml.data.batch import Batch, Inputs, masked_mean
from rbml.data.inputs import RawExamples, Shown
from rbml.data.setting import Setting
from rbml.data.targets import Metric, Target
from rbml.errors import UsageError
from rbml.models import MLP
from rbml.predictor import Predictor
from rbml.tasks import Episode, generator, task_seeds
from rbml.training import evaluate
from rbml.training.estimate import leave_out
from rbml.training.evaluator import judge

# ------------------------------------------------------------------------------------------------------- the modality


@dataclass(frozen=True)
class Letters:
    """Words, stored as how often each letter occurs."""

    alphabet: str = "abcd"
    kind = "letters"

    def read(self, raw: Sequence[Any]) -> Tensor:
        """Return counts ``(n, letters)`` in uint8."""
        return torch.tensor([[word.count(letter) for letter in self.alphabet] for word in raw], dtype=torch.uint8)

    def ready(self, stored: Inputs) -> Inputs:
        """Return counts as floats."""
        assert isinstance(stored, Tensor)
        return stored.float()

    def show(self, stored: Inputs) -> Shown:
        """Return the letters of each word, in alphabetical order."""
        assert isinstance(stored, Tensor)
        words = ["".join(map(str.__mul__, self.alphabet, counts)) for counts in stored.tolist()]
        return Shown("text", words)

    def spec(self) -> dict[str, Any]:
        """Return what ``Letters(**spec)`` is made from."""
        return {"alphabet": self.alphabet}

    def facts(self) -> dict[str, Any]:
        """Return what a model must know."""
        return {"inputs": len(self.alphabet)}

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Return the words themselves: they need no files."""
        return RawExamples(places, None, [str(place) for place in places])


# --------------------------------------------------------------------------------------------------------- the target


def angle(prediction: Tensor) -> Tensor:
    """Return the direction of vectors ``(n, 2)`` in radians, ``(n,)``."""
    return torch.atan2(prediction[..., 1], prediction[..., 0])


def loss(prediction: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared distance to the point at angle y on the unit circle."""
    return ((prediction - torch.stack([y.cos(), y.sin()], -1)) ** 2).sum(-1).mean()


def degrees_off(prediction: Tensor, batch: Batch) -> Tensor:
    """Return the mean angle between prediction and truth, 0 to 180 degrees."""
    apart = (angle(prediction) - batch.y + pi) % (2 * pi) - pi
    return masked_mean(apart.abs() * (180 / pi), batch.mask)


def mean_direction(support: Batch, query: Batch) -> Tensor:
    """Predict the mean direction of the support set for every query."""
    return torch.stack([support.y.cos().mean(), support.y.sin().mean()]).expand(len(query.y), 2)


def check(prediction: Tensor, batch: Batch) -> None:
    """Refuse what is no direction per example."""
    if prediction.shape != (*batch.y.shape, 2):
        raise UsageError(f"directions need predictions (n, 2), not {tuple(prediction.shape)}")


def read(raw: Sequence[Any], names: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    """Return degrees as radians."""
    return torch.tensor([float(one) * pi / 180 for one in raw]), ["direction"]


def decode(prediction: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return degrees from 0 to 360."""
    return [{"degrees": one} for one in (angle(prediction) * (180 / pi) % 360).tolist()]


DIRECTION = Target(
    kind="direction",
    loss=loss,
    metrics=(Metric("error", degrees_off, "lower", "degrees"),),
    baselines={"mean direction": mean_direction},
    check=check,
    read=read,
    decode=decode,
)

inputs.ALL["letters"] = Letters  # so that files that name them can be loaded
targets.ALL["direction"] = DIRECTION


# ----------------------------------------------------------------------------------------------------------- the tasks


@dataclass(frozen=True)
class Compasses:
    """Tasks in which each letter turns by the same angle, from a north that each task has of its own."""

    shots: int = 5
    queries: int = 20
    modality = Letters()
    target = DIRECTION
    outputs = 2
    about = "words of 1 to 6 letters, and where they turn to"

    def draw(self, seeds: Sequence[int]) -> Episode:
        """Return a stack of tasks, one per seed."""
        x, y = (torch.stack(column) for column in zip(*(self._task(seed) for seed in seeds), strict=True))
        k = self.shots
        return Episode(*(Batch(self.modality.ready(x[:, part]), y[:, part]) for part in (slice(k), slice(k, None))))

    def _task(self, seed: int) -> tuple[Tensor, Tensor]:
        source = generator(seed)
        draws = torch.randint(4, (self.shots + self.queries, 6), generator=source)
        lengths = torch.randint(1, 7, (len(draws), 1), generator=source)
        words = ["".join("abcd"[i] for i in row[:n]) for row, n in zip(draws.tolist(), lengths.flatten(), strict=True)]
        north = 2 * pi * torch.rand((), generator=source)
        x = self.modality.read(words)
        return x, north + x.float() @ torch.tensor([0.2, 0.4, -0.3, 0.6])


def main(arguments: Sequence[str] | None = None) -> None:
    """Meta-train, measure beside the baseline, learn one task and predict its words."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outer-steps", type=int, default=300)
    steps = parser.parse_args(arguments).outer_steps
    torch.manual_seed(0)
    tasks, metric = Compasses(), DIRECTION.metrics[0]
    model = MLP(tasks.modality.facts()["inputs"], tasks.outputs, hidden=(32, 32))
    learner = algorithms.meta_sgd(model, lr=0.1, steps=3, loss=DIRECTION.loss)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for step in range(steps):
        optimizer.zero_grad()
        learner.backward(tasks.draw(task_seeds(16, generator(0, step))))
        optimizer.step()

    scores = evaluate(learner, tasks, 200, seed=1)["inductive"][metric.name]
    by_step = ", ".join(metric.shown(score.mean) for score in scores)
    mean = judge(mean_direction, metric, tasks.draw(task_seeds(200, generator(1, 2)))).mean().item()
    print(f"{metric.name} before and after each step: {by_step}; mean direction of the support: {metric.shown(mean)}")

    words, turned = ["a", "bb", "cad", "dd", "abc"], [101.5, 135.8, 118.6, 158.8, 107.2]  # north is at 90 degrees
    y, names = DIRECTION.read(turned, None)
    support = Batch(tasks.modality.ready(tasks.modality.read(words)), y)
    adapted = learner.adapt(*support)
    saved = Setting(tasks.modality, DIRECTION, tasks.outputs).to_json()  # what stands in a run folder
    setting = Setting.from_json(saved)
    predictor = Predictor(adapted, setting.modality, setting.target, names)
    found = predictor(["b", "ddd"]).records
    print(", ".join(f"{word}: {one['degrees']:.0f} degrees" for word, one in zip(["b", "ddd"], found, strict=True)))
    left_out = leave_out(learner, support, DIRECTION)
    assert left_out is not None
    print(f"leaving out one word at a time: {metric.shown(left_out.mean)}")


if __name__ == "__main__":
    main()
