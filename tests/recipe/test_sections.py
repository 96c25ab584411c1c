"""Recipes: what they refuse, their short names, and their way through JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest

from rbml.errors import CheckpointError, UsageError
from rbml.recipe import Choice, Data, Outer, Recipe
from rbml.recipe.entries import ENTRIES
from rbml.recipe.protocol import backbone_recipe, protocol, recipe_of


def changed() -> Recipe:
    """A recipe in which every entry differs from its default."""
    return Recipe.of(
        data="folder:/x", split="lake", task="umtra", labels="none", augment="flip", ways=7, shots=2, queries=3,
        order="time", group="g", target="t", encoder="efficientnet_lite0", start="/runs/a",
        algorithm="anil", lr=0.25, steps=3, engine="unrolled", engine_options={"window": 2},
        model="conv4", filters=8, norm="group", pool="max", size=20, channels=3, context=3, dropout=0.5,
        shared_head=True, statistics="inductive", meta_steps=9, pretrain=4, tasks=3, outer_lr=0.5, clip=0.0, seed=11,
        chunk=2, compile="step", vectorise="no", verify=False, validate_every=4, validate_tasks=6, save_every=5,
        patience=2, keep_best=3,
        strategy="momentum, sgd", settings={"sgd.lr.per": "layer", "sgd.lr.bounds": [0, None]},
        options={"adapt": "head.*"}, strategy_file="x", freeze_strategy=True,
    )  # fmt: skip


def test_a_recipe_survives_json() -> None:
    default = Recipe.of().short()
    assert set(changed().short()) == set(ENTRIES)
    assert [name for name, value in changed().short().items() if default.get(name) == value] == ["model"]
    for recipe in (Recipe.of(), changed()):
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_short_names_are_places_in_the_tree() -> None:
    recipe = changed()
    assert recipe.data == (Data(name="folder", path="/x", split="lake", options={"group": "g", "target": "t"}),)
    assert recipe.engine == Choice(name="unrolled", options={"window": 2})
    assert recipe.algorithm.options == {"shared_head": True, "lr": 0.25, "steps": 3, "statistics": "inductive",
                                        "adapt": "head.*"}  # fmt: skip
    assert recipe.outer == Outer(start="/runs/a", meta_steps=9, pretrain=4, tasks=3, lr=0.5, clip=0.0, seed=11,
                                 validate_every=4, validate_tasks=6, save_every=5, patience=2, keep_best=3)  # fmt: skip


def test_another_source_model_or_engine_begins_without_the_options_of_the_former() -> None:
    recipe = changed().changed(data="digits", model="mlp", engine="adjoint")
    assert (recipe.data[0], recipe.model) == (Data(name="digits"), Choice(name="mlp"))
    assert recipe.engine == Choice(name="adjoint")
    assert changed().changed(engine=None).engine is None
    assert changed().changed(lr=None).short().get("lr") is None
    assert changed().changed(model="conv4", filters=4).model.options["norm"] == "group"  # the same one keeps them


def test_a_recipe_needs_no_torch() -> None:
    code = "import sys; from rbml.recipe import Recipe; Recipe.of(ways=3, steps=2); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"wayz": 3}, "no entry of a recipe named 'wayz': did you mean 'ways'"),
        ({"ways": "five"}, "ways must be a whole number, not 'five'"),
        ({"algorithm": "reptil"}, "did you mean 'reptile'"),
        ({"ways": 1}, r"at least 2 classes \(ways\)"),
    ],
)
def test_json_of_something_else_is_a_checkpoint_error(values: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        Recipe.from_json({"data": "glyphs"} | values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tasks": {"wayz": 3}}, "no entry of tasks named 'wayz': did you mean 'ways'"),
        ({"outer": {"lr": -1}}, "outer_lr must be a number above 0, not -1"),
        ({"outre": {}}, "no entry of a recipe named 'outre': did you mean 'outer'"),
        ({"model": {"options": {}}}, "name is missing"),
        ({"data": []}, "data must have at least one entry"),
        ({"execution": {"compile": "hole"}}, "no choice of compile named 'hole': did you mean 'whole'"),
        ({"tasks": 3}, "tasks must be a table, not 3"),
    ],
)
def test_trees_that_cannot_be_meant_are_refused_by_name(values: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        Recipe.from_json(Recipe.of().to_json() | values)
    with pytest.raises(UsageError, match=said):
        Recipe(**values)


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
        Recipe.of(**{name: value})
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [("algorithm", "mamal", "maml"), ("model", "conv", "conv4"), ("engine", "unroled", "unrolled"),
     ("statistics", "transductiv", "transductive")],
)  # fmt: skip
def test_names_that_do_not_exist_are_refused_with_the_nearest_one(name: str, value: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"{value!r}: did you mean {meant!r}"):
        Recipe.of(**{name: value})


def test_statistics_that_are_never_learned_are_refused() -> None:
    with pytest.raises(UsageError, match="running"):
        Recipe.of(statistics="running")


def test_protocols_are_those_of_the_papers() -> None:
    assert protocol("glyphs", {"ways": 20, "algorithm": "maml"}) == {}
    assert protocol("folder:x", {}) == {}
    assert protocol("omniglot", {"ways": 5, "algorithm": None}) == {"split": "vinyals"}
    assert protocol("omniglot", {"ways": 20}) == {"split": "vinyals", "lr": 0.1, "steps": 5, "tasks": 16}
    assert protocol("omniglot", {"ways": 20, "algorithm": "meta_sgd"}) == {"split": "vinyals"}
    streams = recipe_of("omniglot", {"algorithm": "oml"})
    assert (streams.tasks.name, streams.tasks.ways * streams.tasks.shots) == ("continual", 90)
    assert streams.algorithm.options["steps"] == 90 and streams.model.options == {"norm": "group"}
    assert streams.algorithm.options["cosine"] and streams.algorithm.options["lr"] == 1.0
    assert "cosine" not in recipe_of("omniglot", {"algorithm": "oml", "model": "oml"}).algorithm.options
    assert streams.tasks.options == {"remember": 30, "labels": "global"} and streams.inputs.size == 28
    for name, size, remember in (("oml", 84, 15), ("anml", 28, 64)):
        papers = recipe_of("omniglot", {"algorithm": name, "model": name})
        assert (papers.tasks.ways * papers.tasks.shots, papers.algorithm.options["steps"]) == (15, 15)
        assert (papers.inputs.size, papers.tasks.options["remember"]) == (size, remember)
    recipe = recipe_of("omniglot", {"ways": 20, "tasks": 3, "shots": None})
    assert (recipe.data[0].split, recipe.outer.tasks, recipe.tasks.shots) == ("vinyals", 3, 1)
    assert recipe.algorithm.options == {"lr": 0.1, "steps": 5}


def test_sentences_learn_on_the_best_variant_of_their_encoder_beside_a_discriminant() -> None:
    recipe = recipe_of("banking77", {"encoder": "minilm"})
    assert (recipe.inputs.encoder, recipe.model.name, recipe.algorithm.name) == (
        "minilm:weighted",
        "discriminant_adaptor",
        "protonet",
    )
    own = recipe_of("banking77", {"encoder": "minilm:mean", "model": "adaptor"})
    assert (own.inputs.encoder, own.model.name) == ("minilm:mean", "adaptor")
    assert recipe_of("text:bank.csv", {"encoder": "hf:folder"}).inputs.encoder == "hf:folder"
    assert backbone_recipe("minilm").inputs.encoder == "minilm:weighted"
    pictures = recipe_of("grocery", {"encoder": "efficientnet_lite0"})
    assert (pictures.inputs.encoder, pictures.model.name) == ("efficientnet_lite0", "adaptor")


def test_whole_encoders_of_sentences_begin_with_small_steps() -> None:
    recipe = recipe_of("text:bank.csv", {"model": "minilm", "model_options": {"rank": 8}})
    assert (recipe.algorithm.name, recipe.algorithm.options["scale"]) == ("protonet", 16.0)
    assert recipe.outer.lr < 2e-3 and recipe.outer.tasks == 1 and recipe.model.options == {"rank": 8}
    own = recipe_of("clinc150", {"model": "hf:folder", "options": {"scale": 4.0}, "outer_lr": 1e-5})
    assert (own.algorithm.options, own.outer.lr) == ({"scale": 4.0}, 1e-5)
    assert recipe_of("clinc150", {"model": "hf:folder", "algorithm": "maml"}).algorithm.options == {}
    assert recipe_of("banking77", {}).model.name == recipe_of("text:bank.csv", {}).model.name == "tfidf"
