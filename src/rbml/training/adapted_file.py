"""The file of an adapted model, which ``rbml adapt`` writes and ``rbml predict`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from rbml.data.setting import Setting
from rbml.errors import CheckpointError, DivergedError
from rbml.learner import Adapted
from rbml.recipe import Recipe, StrategyChoice, build
from rbml.training import files


class AdaptedFile(NamedTuple):
    """The content of a file of an adapted model.

    Attributes:
        adapted: the model.
        recipe: the recipe of the run that it comes from.
        setting: its inputs and targets.
        names: the names of the classes or values, in the order of its outputs.
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
        recipe: the recipe of the run that it comes from.
        setting: the setting of that run.
        names: the names of the classes or values, in the order of its outputs.

    Raises:
        DivergedError: if the model has numbers that are not finite: its predictions would be meaningless.
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
    """Return what :func:`save_adapted` wrote; also files of rbml 0.1.0, which had only classes of pictures.

    Raises:
        CheckpointError: if the file is damaged, or is not an adapted model.
    """
    content = files.load(path, "adapted")
    recipe = Recipe.from_json(content["recipe"])
    setting = Setting.from_json(content["setting"]) if "setting" in content else build.setting(recipe)
    state = content["model"]
    model = _model(recipe, setting)
    own = model.state_dict()
    if own.keys() != state.keys():
        raise CheckpointError(f"{path} belongs to another model than it says: {sorted(own.keys() ^ state.keys())}")
    parameters = {name: state[name] for name, _ in model.named_parameters()}
    statistics = {name: leaf for name, leaf in state.items() if name not in parameters}
    return AdaptedFile(Adapted(model, parameters, statistics), recipe, setting, content["names"])


def _model(recipe: Recipe, setting: Setting) -> nn.Module:
    """Return the model as the algorithm uses it: a preset may have added layers to it."""
    preset = recipe.model_copy(update={"strategy": StrategyChoice()}).changed(lr=None, steps=None)
    return build.learner(preset, setting).model
