"""Recipes: what they refuse, what they build, and their way through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml import Batch, Episodes, algorithms, hypergrad
from rbml.errors import CheckpointError, DataError, UsageError
from rbml.models import MLP, Conv4
from rbml.strategy.serialize import from_plain, in_words, plain
from rbml.training import Recipe
from rbml.training.recipe import protocol


def test_a_recipe_survives_json() -> None:
    changed = Recipe(
        data="folder:/x", split="lake", ways=7, shots=2, queries=3, algorithm="anil", lr=0.25, steps=3,
        engine="unrolled", engine_options={"window": 2},
        model="mlp", filters=8, norm="group", pool="max", size=20, channels=3,
        shared_head=True, statistics="inductive", meta_steps=9, tasks=3, outer_lr=0.5, clip=0.0, seed=11,
        chunk=2, compile=True, validate_every=4, validate_tasks=6, save_every=5, context=3,
        strategy="momentum, sgd", settings={"sgd.lr.per": "layer", "sgd.lr.bounds": [0, None]},
        options={"adapt": "head.*"}, strategy_file="x", freeze_strategy=True,
    )  # fmt: skip
    assert all(getattr(changed, field.name) != getattr(Recipe(), field.name) for field in fields(Recipe))
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
          "validate_tasks", "save_every")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in COUNTS for value in (0, -3)]
    + [(name, value) for name in ("lr", "outer_lr") for value in (0.0, -0.1, math.nan, math.inf)]
    + [
        ("steps", -1),
        ("context", -2),
        ("clip", -1.0),
        ("clip", math.nan),
        ("clip", math.inf),
        ("seed", -1),
        ("ways", 1),
        ("channels", 2),
    ],
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


SMALL: dict[str, Any] = {"filters": 2, "size": 16, "ways": 3}


def test_the_strategy_is_what_the_recipe_says() -> None:
    settings = {"sgd.lr.per": "layer", "sgd.lr.per_step": True, "momentum.nesterov": True}
    recipe = Recipe(steps=3, lr=0.2, strategy="momentum, sgd", settings=settings, **SMALL)
    learner = recipe.build_learner()
    assert in_words(learner.strategy) == "momentum(decay 0.9, nesterov), sgd(lr 0.2 learned per layer each step)"
    phi = dict(learner.phi.named_parameters())
    assert len(phi) == 9 and all(torch.equal(leaf, torch.full((3,), 0.2)) for leaf in phi.values())
    plain = Recipe(steps=3, lr=0.2, **SMALL).build_learner().state_dict()
    assert all(torch.equal(leaf, plain[name]) for name, leaf in learner.state_dict().items() if "phi" not in name)
    frozen = replace(recipe, freeze_strategy=True).build_learner()
    assert not dict(frozen.phi.named_parameters()) and set(dict(frozen.phi.named_buffers())) >= set(phi)


def test_starts_that_are_drawn_depend_on_the_seed_alone() -> None:
    recipe = Recipe(settings={"sgd.lr.value": [0.1, 0.2], "sgd.lr.per": "element"}, **SMALL)
    first = recipe.build_learner().phi.state_dict()
    torch.manual_seed(77)
    again, other = recipe.build_learner().phi.state_dict(), replace(recipe, seed=1).build_learner().phi.state_dict()
    assert all(torch.equal(leaf, again[name]) for name, leaf in first.items())
    assert not torch.equal(first["sgd.lr/head.weight"], other["sgd.lr/head.weight"])


def test_options_reach_the_preset_and_the_learner() -> None:
    learner = Recipe(
        algorithm="maml++", options={"learned_rates": False, "head": "head.weight"}, **SMALL
    ).build_learner()
    assert not dict(learner.phi.named_parameters()) and learner.head == ["head.weight"]
    assert Recipe(options={"adapt": "head.*"}, **SMALL).build_learner().adapted == ["head.weight", "head.bias"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"adpt": "x"}}, "no option of maml named 'adpt': did you mean 'adapt'"),
        ({"options": {"adapt": 3}}, "adapt must be text, not 3"),
        ({"options": {"hypergradient": "x"}}, "no option of maml named 'hypergradient'"),
        ({"settings": {"sdg.lr": 1}}, "did you mean 'sgd'"),
        ({"settings": {"momentum.decay": 1}}, 'has no momentum: put it where it shall act .* strategy="momentum, sgd"'),
        ({"strategy": "momentm"}, "did you mean 'momentum'"),
        ({"strategy": "adagrad", "lr": 0.1}, r"lr=0.1 is that of sgd, which is not in strategy='adagrad'"),
        ({"strategy": "l2"}, "a strategy of terms alone"),
        ({"algorithm": "protonet", "lr": 0.1}, "protonet has no lr to set"),
        ({"steps": 0}, "steps must be at least 1, not 0: without an inner step maml adapts nothing"),
    ],
)
def test_what_the_preset_or_the_strategy_has_not_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Recipe(**(SMALL | changes)).build_learner()


def test_a_head_from_the_support_set_needs_no_inner_step() -> None:
    for changes in (
        {"algorithm": "protonet"},
        {"algorithm": "r2d2", "steps": 0},
        {"steps": 0, "strategy": "ridge, sgd"},
    ):
        assert Recipe(**(SMALL | changes)).build_learner().steps == 0


def test_context_parameters_are_those_of_cavia() -> None:
    shapes = {name: leaf.shape for name, leaf in Recipe(algorithm="cavia", **SMALL).build_learner().named_parameters()}
    assert shapes["model.context"] == (100,)
    assert Recipe(algorithm="cavia", context=4, model="mlp", **SMALL).build_learner().adapted == ["context"]
    assert "context" not in dict(Recipe(**SMALL).build_model().named_parameters())


@pytest.mark.parametrize("algorithm", algorithms.ALL)
def test_every_preset_is_built_from_a_recipe(algorithm: str) -> None:
    learner = Recipe(algorithm=algorithm, **SMALL).build_learner()
    assert from_plain(plain(learner.strategy)).parts[0].name == learner.strategy.parts[0].name


def test_protocols_are_those_of_the_papers() -> None:
    assert protocol("glyphs", 20, "maml") == {}
    assert protocol("omniglot", 5, None) == {"split": "vinyals"}
    assert protocol("omniglot", 20, None) == {"split": "vinyals", "lr": 0.1, "steps": 5, "tasks": 16}
    assert protocol("omniglot", 20, "meta_sgd") == {"split": "vinyals"}


def test_bounded_numbers_of_terms_keep_the_type_of_the_model() -> None:
    """PyTorch gives the tangent of a float32 number behind a sigmoid as float64 (forward over reverse)."""
    settings = {"l2.strength.bounds": [0, 1], "label_smoothing.rate.bounds": [0, 1]}
    learner = Recipe(strategy="l2, label_smoothing, sgd", settings=settings, **SMALL).build_learner()
    x, y = torch.rand(2, 6, 1, 16, 16), torch.arange(6).remainder(3).expand(2, -1)
    grads = learner.backward(Episodes(Batch(x, y), Batch(x, y))).grads
    assert all(grad.dtype == torch.float32 for grad in grads.values())
    assert all(abs(float(grads[f"phi.{name}"])) > 0 for name in ("l2.strength", "label_smoothing.rate"))
