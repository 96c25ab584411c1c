"""A saved Keras model as the model of a recipe, ``--model keras:FILE.keras``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("keras", reason="needs Keras: pip install 'rbml[keras]'")
if os.environ["KERAS_BACKEND"] != "torch":
    pytest.skip("these tests need KERAS_BACKEND=torch", allow_module_level=True)

import keras
from keras import layers as L

from rbml.data import inputs
from rbml.data.inputs.table import Table
from rbml.data.setting import Setting
from rbml.data.targets import REAL
from rbml.errors import DataError, UsageError
from rbml.keras import to_keras
from rbml.models import keras as model_of
from rbml.recipe import Recipe, build


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Return a function that saves a model of layers and returns ``keras:FILE``."""

    def save(*layers: Any) -> str:
        file = tmp_path / "network.keras"
        keras.Sequential(layers).save(file)
        return f"keras:{file}"

    return save


def pictures_of(**more: Any) -> tuple[Any, ...]:
    return (
        L.Input((12, 12, 1)),
        L.Conv2D(3, 3, name="conv"),
        L.GlobalAveragePooling2D(),
        L.Dense(**({"units": 10, "activation": "softmax", "name": "last"} | more)),
    )


def test_a_model_of_pictures_gets_an_output_per_class_and_keeps_its_other_values(saved: Any) -> None:
    name = saved(*pictures_of())
    recipe = Recipe.of(model=name, ways=5, size=12, steps=2)
    learner = build.learner(recipe)
    before = keras.saving.load_model(name.removeprefix("keras:"))
    x = torch.rand(4, 1, 12, 12)
    assert learner.model(x).shape == (4, 5)
    adapted = learner.adapt(x, torch.arange(4))
    again = to_keras(adapted)
    probabilities = again(x.permute(0, 2, 3, 1))
    assert torch.allclose(probabilities.sum(1), torch.ones(4))
    assert torch.allclose(probabilities, adapted(x).softmax(1), atol=1e-6)
    at_the_start = to_keras(learner).get_layer("conv").kernel
    assert torch.equal(at_the_start.value, before.get_layer("conv").kernel.value)


def test_the_new_outputs_repeat_with_the_seed(saved: Any) -> None:
    name = saved(*pictures_of())
    starts = [build.learner(Recipe.of(model=name, ways=5, size=12, seed=seed)).state_dict() for seed in (1, 1, 2)]
    first, same, other = (start["model.last.weight"] for start in starts)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_model_whose_outputs_fit_keeps_all_its_values(saved: Any) -> None:
    name = saved(*pictures_of(units=5, activation=None))
    before = keras.saving.load_model(name.removeprefix("keras:"))
    x = torch.rand(4, 1, 12, 12)
    module = model_of(5, name.removeprefix("keras:"), "pictures", 12, 1)
    assert torch.allclose(module(x), before(x.permute(0, 2, 3, 1)), atol=1e-6)


def test_a_model_of_rows(saved: Any) -> None:
    name = saved(L.Input((3,)), L.Dense(4, "tanh"), L.Dense(2))
    table = Setting(Table(("a", "b", "c"), (0.0,) * 3, (1.0,) * 3), REAL, 1)
    learner = build.learner(Recipe.of(model=name), table)
    assert learner.model(torch.zeros(6, 3)).shape == (6, 1)


@pytest.mark.parametrize(
    ("layers", "recipe", "message"),
    [
        (pictures_of(), {"size": 28}, "--size and --channels"),
        (pictures_of(), {"size": 12, "channels": 3}, r"\(12, 12, 3\)"),
        ((L.Input((784,)), L.Dense(5)), {}, r"keras\.layers\.Flatten"),
        ((L.Input((12, 12, 1)), L.Flatten(), L.Dense(3), L.ReLU()), {"size": 12}, r"end the model with keras\.layers"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused(saved: Any, layers: Any, recipe: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build.learner(Recipe.of(model=saved(*layers), **recipe))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.keras").write_text("nothing")
    for name, message in (("words.keras", "is not a file of Keras 3"), ("none.keras", "there is no Keras model")):
        with pytest.raises(DataError, match=message):
            build.model(Recipe.of(model=f"keras:{tmp_path / name}"), Setting(inputs.Pictures(28), REAL, 1))
