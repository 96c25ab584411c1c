"""The subject of ``rbml check`` and ``rbml explain``: a run, or a recipe that has not been trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rbml import hypergrad
from rbml.cli.devices import chosen_device
from rbml.cli.options import gathered, with_colour
from rbml.cli.show import console
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.recipe import build
from rbml.recipe.protocol import recipe_of
from rbml.recipe.streams import TRAIN
from rbml.tasks import generator, task_seeds
from rbml.training import RunFolder
from rbml.training.start import given as what_it_learned
from rbml.training.start import look, take


def plainly(engine: str) -> str:
    """Return the text of an engine without the options that have their defaults.

    >>> plainly("Adjoint(store='all', hvp='reverse', window=None, exact=False, keep=None)")
    "Adjoint(hvp='reverse')"
    """
    name, _, inside = engine.removesuffix(")").partition("(")
    kind = getattr(hypergrad, name, None)
    usual = repr(kind()).removesuffix(")").partition("(")[2].split(", ") if kind is not None else []
    return f"{name}({', '.join(option for option in inside.split(', ') if option not in usual)})"


def subject(
    place: str,
    data_root: str | None,
    settings: tuple[str, ...],
    config: Path | None,
    given: dict[str, Any],
    float64: bool = False,
) -> tuple[Learner, Any]:
    """Return the current learner of a run, or that of an untrained recipe, and the tasks of its first outer step.

    Args:
        place: a run folder, or a source of data.
        data_root: where data is looked for.
        settings: as in ``rbml train --set``.
        config: as in ``rbml train --config``.
        given: the entries of a recipe that were given.
        float64: whether it is computed in double precision.

    Raises:
        UsageError: if entries of a recipe are given along with a run.
    """
    folder, device = RunFolder(place), chosen_device(float64)
    if folder.config.is_file():
        if settings or config or any(value is not None for value in given.values()):
            raise UsageError(f"{place} is a run with a recipe of its own: leave the other options out")
        recipe, trained = folder.recipe(), folder.last.is_file()
        tasks = build.tasks(recipe, "train", data_root or folder.read_config()["data_root"], device)
        learner = folder.learner("last") if trained else folder.fresh()
        if not trained:
            look(learner, tasks, recipe.outer.seed)
            folder.begin(learner)
        console.print(f"{recipe.algorithm.name}, the run in {place}, {'as trained' if trained else 'at its start'}")
    else:
        source, chosen = gathered(place, given, settings, config)
        recipe = recipe_of(str(source), with_colour(str(source), chosen))
        tasks = build.tasks(recipe, "train", data_root, device)
        learner = build.learner(recipe, build.setting(recipe, tasks))
        look(learner, tasks, recipe.outer.seed)
        if recipe.outer.start is not None:
            take(learner, what_it_learned(RunFolder(recipe.outer.start).learner()))
        console.print(f"{recipe.algorithm.name} on {recipe.source}, at its start")
    learner.to(device)
    return learner, tasks.draw(task_seeds(recipe.outer.tasks, generator(recipe.outer.seed, TRAIN)))
