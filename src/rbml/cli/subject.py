"""What ``rbml check`` and ``rbml explain`` look at: a run, or a recipe that was not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rbml.cli.options import gathered, recipe_of
from rbml.cli.show import console
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.tasks import Episodes, generator
from rbml.training import RunFolder
from rbml.training.recipe import TRAIN


def subject(
    place: str, data_root: str | None, settings: tuple[str, ...], config: Path | None, given: dict[str, Any]
) -> tuple[Learner, Episodes]:
    """Return the learner of a run as it is now, or of a recipe at its start, and the tasks of its first outer step.

    Args:
        place: a run folder, or a source of data.
        data_root: where data is looked for.
        settings: as of ``rbml train --set``.
        config: as of ``rbml train --config``.
        given: the entries of a recipe that were given.

    Raises:
        UsageError: if entries of a recipe are given beside a run.
    """
    folder = RunFolder(place)
    if folder.config.is_file():
        if settings or config or any(value is not None for value in given.values()):
            raise UsageError(f"{place} is a run with a recipe of its own: leave the other options out")
        recipe = folder.recipe()
        trained = folder.last.is_file()
        learner = folder.learner("last") if trained else recipe.build_learner()
        data_root = data_root or folder.read_config()["data_root"]
        console.print(f"{recipe.algorithm}, the run in {place}, {'as trained' if trained else 'at its start'}")
    else:
        source, chosen = gathered(place, given, settings, config)
        recipe = recipe_of(str(source), chosen)
        learner = recipe.build_learner()
        console.print(f"{recipe.algorithm} on {recipe.data}, at its start")
    tasks = recipe.build_tasks("train", data_root)
    return learner, tasks.sample(recipe.tasks, generator(recipe.seed, TRAIN))
