"""What has been learned, whatever it lies in: a run, a pretrained backbone, or a file that ``rbml adapt`` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from rbml.data.setting import Setting
from rbml.devices import CPU
from rbml.learner import Learner
from rbml.recipe import Recipe, build, protocol
from rbml.training.adapted_file import AdaptedFile, load_adapted
from rbml.training.run_folder import RunFolder

BACKBONE = "backbone:"
"""What the name of a pretrained backbone begins with, where a run could stand as well."""


class Learned(NamedTuple):
    """A learner that is ready to adapt, with what belongs to it.

    Attributes:
        learner: theta0 and phi.
        recipe: how it was made.
        setting: its inputs and targets.
        name: what the user called it.
        run: the run folder; ``None`` where there is none.
        file: the content of the file that it comes from; ``None`` where there is none.
    """

    learner: Learner
    recipe: Recipe
    setting: Setting
    name: str
    run: RunFolder | None = None
    file: AdaptedFile | None = None


def load(place: str, which: str = "best", device: torch.device = CPU) -> Learned:
    """Return the learner of a run folder, of ``backbone:NAME``, or of a file that ``rbml adapt`` wrote.

    Args:
        place: the folder, the file, or ``backbone:NAME``: a pretrained backbone with a head that is made from the
            support set, which needs no run.
        which: the checkpoint of a run, ``"best"`` or ``"last"``.
        device: where it is to adapt.

    Raises:
        UsageError: for an unknown backbone, or one whose package is not installed.
        DataError: for weights of a backbone that are not there, or are damaged.
        CheckpointError: for a folder that is not a run, or a file that is damaged or holds no learner.
    """
    if place.startswith(BACKBONE):
        recipe = protocol.backbone_recipe(place.removeprefix(BACKBONE))
        setting = build.setting(recipe)
        return Learned(build.learner(recipe, setting).to(device), recipe, setting, place)
    if Path(place).is_file():
        return of_file(load_adapted(Path(place)), place, device)
    run = RunFolder(place)
    return Learned(run.learner(which).to(device), run.recipe(), run.setting(), place, run)


def of_file(file: AdaptedFile, name: str, device: torch.device = CPU) -> Learned:
    """Return the learner that an adapted model comes from, on a device.

    Raises:
        CheckpointError: if the file was written by an rbml that did not keep it.
    """
    return Learned(file.learner().to(device), file.recipe, file.setting, name, file=file)
