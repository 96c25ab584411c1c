"""What the tests of training share: tiny tasks in memory, and runs of a few steps on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml.tasks import FewShot
from rbml.training import Recipe, RunFolder, files, train

SIZE = 8


def tiny(**changes: Any) -> Recipe:
    """A recipe of twelve outer steps that takes half a second."""
    own: dict[str, Any] = {"ways": 3, "queries": 2, "filters": 8, "size": SIZE, "tasks": 2, "meta_steps": 12}
    own |= {"validate_every": 4, "validate_tasks": 4, "save_every": 3, "outer_lr": 0.01}
    return Recipe.of(**(own | changes))


def tiny_tasks(shots: int = 1, ways: int = 3) -> FewShot:
    """Noise around a pattern a class, in uint8."""
    source = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 200, (10, 1, 1, SIZE, SIZE), generator=source)
    x = patterns + torch.randint(0, 50, (10, 6, 1, SIZE, SIZE), generator=source)
    return FewShot((x.flatten(0, 1).to(torch.uint8), torch.arange(60) // 6), ways, shots, 2)


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """``recipe(**changes)``: a tiny recipe."""
    return tiny


@pytest.fixture
def tasks() -> FewShot:
    """Ten classes of 8x8 pictures: 3 ways, 1 shot."""
    return tiny_tasks()


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., RunFolder]:
    """``trained(name, recipe, stop_after=None)``: train a run, or go on with it; stop after so many steps."""

    def run(name: str, recipe: Recipe, stop_after: int | None = None) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        if not folder.config.is_file():
            folder.create(recipe, {}, None)
        taken = count(1)
        list(train(folder, recipe, tiny_tasks(), tiny_tasks(), lambda: next(taken) == stop_after))
        return folder

    return run


@pytest.fixture
def same() -> Callable[[RunFolder, RunFolder], bool]:
    """``same(run, other)``: whether everything that a run leaves is the same to the bit, but for its seconds."""

    def journal(run: RunFolder) -> list[dict[str, Any]]:
        lines = run.journal.read_text().splitlines()
        return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]

    def checkpoints(run: RunFolder) -> list[Any]:
        return [bits(files.load(run.last, "checkpoint")), bits(files.load(run.best, "best"))]

    return lambda run, other: checkpoints(run) == checkpoints(other) and journal(run) == journal(other)


def bits(value: Any) -> Any:
    """Return tensors as their bytes, and whatever holds them as it is: equal only if equal to the bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return [(key, bits(part)) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [bits(part) for part in value]
    return type(value), repr(value)
