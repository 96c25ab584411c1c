"""Recipes: what they refuse, what they build, and their way through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml import hypergrad
from rbml.errors import CheckpointError, DataError, UsageError
from rbml.models import MLP, Conv4
from rbml.training import Recipe
from rbml.training.recipe import protocol


def test_a_recipe_survives_json() -> None:
    changed = Recipe(
        data="folder:/x", split="lake", ways=7, shots=2, queries=3, algorithm="anil", lr=0.25, steps=3,
        engine="unrolled", model="mlp", filters=8, norm="group", pool="max", size=20, channels=3,
        shared_head=True, statistics="inductive", meta_steps=9, tasks=3, outer_lr=0.5, clip=0.0, seed=11,
        chunk=2, compile=True, validate_every=4, validate_tasks=6, save_every=5,
    )  # fmt: skip
    assert all(getattr(changed, field.name) != field.default for field in fields(Recipe))
    for recipe in (Recipe(), changed):
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"wayz": 3}, "wayz"),
        ({"ways": "five"}, "five|str"),
        ({"algorithm": "reptil"}, "reptil"),
        ({"ways": 1}, "2 ways"),
    ],
)
def test_json_of_something_else_is_a_checkpoint_error(values: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        Recipe.from_json(Recipe().to_json() | values)


COUNTS = ("ways", "shots", "queries", "filters", "size", "channels", "meta_steps", "tasks", "chunk", "validate_every",
          "validate_tasks", "save_every", "steps")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in COUNTS for value in (0, -3)]
    + [(name, value) for name in ("lr", "outer_lr") for value in (0.0, -0.1, math.nan, math.inf)]
    + [("clip", -1.0), ("clip", math.nan), ("clip", math.inf), ("seed", -1), ("ways", 1), ("channels", 2)],
)
def test_numbers_that_cannot_be_meant_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe(**{name: value})
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [("algorithm", "mamal", "maml"), ("model", "conv", "conv4"), ("engine", "unroled", "unrolled"),
     ("statistics", "transductiv", "transductive")],
)  # fmt: skip
def test_names_that_do_not_exist_are_refused_with_the_nearest_one(name: str, value: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"{value!r}: did you mean {meant!r}"):
        Recipe(**{name: value})


def test_statistics_that_are_never_learned_are_refused() -> None:
    with pytest.raises(UsageError, match="running"):
        Recipe(statistics="running")


def test_what_a_recipe_says_is_what_is_built() -> None:
    recipe = Recipe(ways=4, algorithm="meta_sgd", lr=0.2, steps=3, engine="unrolled", filters=6, norm="group",
                    pool="max", size=32, channels=3, shared_head=True, statistics="inductive", chunk=5)  # fmt: skip
    learner = recipe.build_learner()
    assert isinstance(learner.model, Conv4)
    assert (learner.steps, learner.statistics, learner.chunk) == (3, "inductive", 5)
    assert isinstance(learner.hypergradient, hypergrad.Unrolled)
    shapes = {name: tuple(leaf.shape) for name, leaf in learner.named_parameters()}
    assert shapes["model.blocks.0.conv.weight"] == (6, 3, 3, 3)
    assert shapes["model.head.weight"] == (1, 24)  # one row for all classes; 2 x 2 x 6 features
    phi = [leaf for name, leaf in learner.named_parameters() if name.startswith("phi")]
    assert all(torch.equal(leaf, torch.full_like(leaf, 0.2)) for leaf in phi)
    assert isinstance(replace(recipe, model="mlp").build_learner().model, MLP)


def test_the_seed_decides_the_start_and_the_global_random_state_does_not() -> None:
    before = torch.get_rng_state()
    first = Recipe(filters=2, algorithm="meta_sgd").build_learner().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again = Recipe(filters=2, algorithm="meta_sgd").build_learner().state_dict()
    other = Recipe(filters=2, algorithm="meta_sgd", seed=1).build_learner().state_dict()
    assert all(torch.equal(leaf, again[name]) for name, leaf in first.items())
    drawn = ("model.head.weight", "model.blocks.1.conv.weight", "phi.sgd.lr/head.weight")
    found = [name for name in first if name.endswith(("head.weight", "1.conv.weight"))]
    assert len(found) >= len(drawn)
    assert not any(torch.equal(first[name], other[name]) for name in found)


def test_tasks_come_from_the_parts_of_the_source() -> None:
    recipe = Recipe(ways=3, shots=2, queries=4)
    names = {part: set(recipe.build_tasks(part).names) for part in ("val", "test")}
    assert not names["val"] & names["test"]
    tasks = recipe.build_tasks("test", data="digits", ways=6, shots=1)
    assert (tasks.ways, tasks.shots, tasks.queries, len(tasks.names)) == (6, 1, 4, 10)


def test_pictures_that_do_not_fit_the_model_are_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"1 x 28 x 28 .* model is for 3 x 32 x 32: a run of size 28 and channels 1"):
        Recipe(size=32, channels=3).build_tasks("test", data="digits")


def test_all_classes_are_for_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="part"):
        Recipe().build_tasks("all", data="digits")
    with pytest.raises(DataError, match="no class folders"):
        Recipe().build_tasks("all", data=f"folder:{tmp_path}")


def test_protocols_are_those_of_the_papers() -> None:
    assert protocol("glyphs", 20, "maml") == {}
    assert protocol("omniglot", 5, None) == {"split": "vinyals"}
    assert protocol("omniglot", 20, None) == {"split": "vinyals", "lr": 0.1, "steps": 5, "tasks": 16}
    assert protocol("omniglot", 20, "meta_sgd") == {"split": "vinyals"}
