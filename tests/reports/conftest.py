"""What the tests of the reports share: two tiny runs, of a strategy with every granularity and of plain MAML."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rbml import algorithms
from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.strategy import Hyper, chain, l2, momentum, sgd, weight_decay
from rbml.tasks import FewShot
from rbml.training import Recipe, RunFolder, train

SIZE = 16


def everything(model: nn.Module, steps: int = 2, **options: Any) -> Learner:
    """Learn a number of every granularity."""
    rules = (
        l2(Hyper(1e-3, per="tensor", bounds=(0, None))),
        momentum(Hyper(0.5, bounds=(0, 1), per_step=True)),
        sgd(Hyper((0.005, 0.1), per="element")),
        weight_decay(Hyper(0.1, per="layer", per_step=True)),
    )
    return assemble(model, chain(*rules), steps, **options)


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


@pytest.fixture(autouse=True)
def one_more_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``everything`` a preset while one of these tests runs."""
    monkeypatch.setitem(algorithms.ALL, "everything", everything)


@pytest.fixture(scope="session")
def with_tensors(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose strategy has learned tensors, a number of its own, and rates an element; read only."""
    settings = {"sgd.lr.per": "element", "label_smoothing.rate.bounds": [0, 1]}
    changes = {"strategy": "label_smoothing, kronecker, sgd", "settings": settings, "meta_steps": 4}
    return tiny(tmp_path_factory.mktemp("runs") / "tensors", **changes)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose strategy was learned; read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(algorithms.ALL, "everything", everything)
        return tiny(tmp_path_factory.mktemp("runs") / "everything", algorithm="everything")


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
