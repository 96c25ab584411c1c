"""The small file in which a model that has learned somebody's task is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from rbml.data import inputs, targets
from rbml.data.setting import Setting
from rbml.errors import CheckpointError, DivergedError
from rbml.learner import Adapted
from rbml.training import files
from rbml.training.recipe import Recipe


class AdaptedFile(NamedTuple):
    """What a file of an adapted model holds.

    Attributes:
        adapted: the model.
        recipe: of the run that it comes from.
        setting: what goes in and what comes out.
        names: of the classes or values, in the order of its outputs.
    """

    adapted: Adapted
    recipe: Recipe
    setting: Setting
    names: list[str]


def save_adapted(path: Path, adapted: Adapted, recipe: Recipe, setting: Setting, names: Sequence[str]) -> None:
    """Write an adapted model with what is needed to use it.

    Args:
        path: the file.
        adapted: the model.
        recipe: of the run that it comes from.
        setting: of that run.
        names: of the classes or values, in the order of its outputs.

    Raises:
        DivergedError: if it has numbers that are not finite: its predictions would mean nothing.
        RbmlError: if it cannot be written.
    """
    if bad := [name for name, leaf in adapted.model.state_dict().items() if not torch.isfinite(leaf).all()]:
        raise DivergedError(
            f"learning from these examples made {bad[0]} of the model not finite: {path} is not written. "
            "Train a run with a smaller lr"
        )
    state = adapted.model.state_dict()
    content = {"recipe": recipe.to_json(), "setting": setting.to_json(), "names": list(names), "model": state}
    files.save(path, "adapted", content)


def load_adapted(path: Path) -> AdaptedFile:
    """Return what :func:`save_adapted` wrote; files of rbml 0.1.0, which knew pictures of classes alone, too.

    Raises:
        CheckpointError: if the file is damaged, or is not one of these.
    """
    content = files.load(path, "adapted")
    recipe = Recipe.from_json(content["recipe"])
    setting = Setting.from_json(content["setting"]) if "setting" in content else of_pictures(recipe)
    state = content["model"]
    model = _model(recipe)
    own = model.state_dict()
    if own.keys() != state.keys():
        raise CheckpointError(f"{path} belongs to another model than it says: {sorted(own.keys() ^ state.keys())}")
    parameters = {name: state[name] for name, _ in model.named_parameters()}
    statistics = {name: leaf for name, leaf in state.items() if name not in parameters}
    return AdaptedFile(Adapted(model, parameters, statistics), recipe, setting, content["names"])


def of_pictures(recipe: Recipe) -> Setting:
    """Return the setting of a recipe of rbml 0.1.0."""
    return Setting(inputs.Pictures(recipe.size, recipe.channels), targets.CLASSES, recipe.ways)


def _model(recipe: Recipe) -> nn.Module:
    """Return the model as the algorithm has it: a preset may have put layers into it."""
    preset = replace(recipe, strategy=None, settings={}, strategy_file=None, freeze_strategy=False, lr=None, steps=None)
    return preset.build_learner().model
