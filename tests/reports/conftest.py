"""What the tests of the reports share: two tiny runs, of a strategy with every granularity and of plain MAML."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml.tasks import FewShot
from rbml.training import Recipe, RunFolder, train

SIZE = 16


EVERYTHING: dict[str, Any] = {
    "steps": 2,
    "strategy": "l2, momentum, sgd, weight_decay",
    "settings": {
        "l2.strength.value": 1e-3, "l2.strength.per": "tensor", "l2.strength.bounds": [0, None],
        "momentum.decay.value": 0.5, "momentum.decay.bounds": [0, 1], "momentum.decay.per_step": True,
        "sgd.lr.value": [0.005, 0.1], "sgd.lr.per": "element",
        "weight_decay.rate.value": 0.1, "weight_decay.rate.per": "layer", "weight_decay.rate.per_step": True,
    },
}  # fmt: skip
"""A strategy that learns a number of every granularity."""


def pictures(classes: int, channels: int = 1, each: int = 10) -> tuple[torch.Tensor, list[str]]:
    """Blobs of a place and a colour a class, in uint8 on a dark ground, with names."""
    source = torch.Generator().manual_seed(0)
    patterns = torch.rand(classes, 1, channels, SIZE // 4, SIZE // 4, generator=source) > 0.8
    noise = torch.randint(0, 30, (classes, each, channels, SIZE, SIZE), generator=source)
    x = patterns.repeat_interleave(4, -1).repeat_interleave(4, -2) * 200 + noise
    names = [f"kind {index}" for index in range(classes) for _ in range(each)]
    return x.flatten(0, 1).to(torch.uint8), names


def tiny(path: Path, stop_after: int | None = None, **changes: Any) -> RunFolder:
    """Train a tiny run in ``path``."""
    small = {"filters": 4, "size": SIZE, "meta_steps": 6, "tasks": 2, "validate_every": 2, "validate_tasks": 4}
    recipe = Recipe.of(**({"ways": 3, "queries": 2, "outer_lr": 0.02} | small | changes))
    tasks = FewShot(pictures(24, recipe.inputs.channels), recipe.tasks.ways, recipe.tasks.shots, recipe.tasks.queries)
    run = RunFolder(path)
    run.create(recipe, {"train": "blobs of 24 kinds"}, None)
    taken = count(1)
    list(train(run, recipe, tasks, tasks, lambda: next(taken) == stop_after))
    return run


@pytest.fixture(scope="session")
def with_tensors(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose strategy has learned tensors, a number of its own, and rates an element; read only."""
    settings = {"sgd.lr.per": "element", "label_smoothing.rate.bounds": [0, 1]}
    changes = {"strategy": "label_smoothing, kronecker, sgd", "settings": settings, "meta_steps": 4}
    return tiny(tmp_path_factory.mktemp("runs") / "tensors", **changes)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose strategy was learned; read only."""
    return tiny(tmp_path_factory.mktemp("runs") / "everything", **EVERYTHING)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of MAML that was stopped after its first step; read only."""
    return tiny(tmp_path_factory.mktemp("runs") / "maml", stop_after=1)


@pytest.fixture
def copy(trained: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to write into."""
    return RunFolder(shutil.copytree(trained.path, tmp_path / "run"))


@pytest.fixture
def blobs() -> Callable[..., tuple[torch.Tensor, list[str]]]:
    """The function that makes pictures and their names."""
    return pictures


@pytest.fixture
def evaluation() -> Callable[..., dict[str, Any]]:
    """The function that returns what an evaluation's file holds."""

    def scores(base: float, steps: int, episodes: int) -> list[dict[str, float]]:
        return [{"mean": base + 0.1 * t, "interval": 0.01 + 0.001 * t, "tasks": episodes} for t in range(steps + 1)]

    def made(tasks: str = "glyphs", ways: int = 5, steps: int = 2, episodes: int = 600) -> dict[str, Any]:
        about = {"name": f"{tasks}-{ways}w1s", "tasks": tasks, "part": "test", "ways": ways, "shots": 1, "queries": 15}
        accuracy = {"transductive": scores(0.3, steps, episodes), "inductive": scores(0.25, steps, episodes)}
        return about | {"episodes": episodes, "seed": 0, "about": f"{tasks}, part test", "accuracy": accuracy}

    return made
