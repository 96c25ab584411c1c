"""The small file in which a model that has learned somebody's classes is kept."""

from __future__ import annotations

from pathlib import Path

import torch

from rbml.errors import CheckpointError, DivergedError
from rbml.learner import Adapted
from rbml.recipe import Recipe, StrategyChoice, build
from rbml.training import files


def save_adapted(path: Path, adapted: Adapted, recipe: Recipe, names: list[str]) -> None:
    """Write an adapted model with the names of its classes.

    Raises:
        DivergedError: if it has numbers that are not finite: its predictions would mean nothing.
        RbmlError: if it cannot be written.
    """
    if bad := [name for name, leaf in adapted.model.state_dict().items() if not torch.isfinite(leaf).all()]:
        raise DivergedError(
            f"learning from these examples made {bad[0]} of the model not finite: {path} is not written. "
            "Train a run with a smaller lr"
        )
    content = {"recipe": recipe.to_json(), "names": names, "model": adapted.model.state_dict()}
    files.save(path, "adapted", content)


def load_adapted(path: Path) -> tuple[Adapted, Recipe, list[str]]:
    """Return the adapted model, the recipe of its run, and the class names in the order of its outputs.

    Raises:
        CheckpointError: if the file is damaged, or is not one of these.
    """
    content = files.load(path, "adapted")
    recipe = Recipe.from_json(content["recipe"])
    state = content["model"]
    preset = recipe.model_copy(update={"strategy": StrategyChoice()}).changed(lr=None, steps=None)
    model = build.learner(
        preset, build.setting(preset)
    ).model  # not the recipe's own: a preset may have put layers into it
    own = model.state_dict()
    if own.keys() != state.keys():
        raise CheckpointError(f"{path} belongs to another model than it says: {sorted(own.keys() ^ state.keys())}")
    parameters = {name: state[name] for name, _ in model.named_parameters()}
    statistics = {name: leaf for name, leaf in state.items() if name not in parameters}
    return Adapted(model, parameters, statistics), recipe, content["names"]
