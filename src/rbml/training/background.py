"""The classes that a run was trained on, kept in the run folder: beside them the unknown is told."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from rbml.data.batch import Inputs, each_input
from rbml.data.examples import Labelled
from rbml.data.inputs.embedded import Embedded
from rbml.errors import CheckpointError, RbmlError
from rbml.learner import Adapted, Learner
from rbml.recipe import build
from rbml.training import files
from rbml.training.run_folder import RunFolder
from rbml.training.unknown import Background, features_of, layer_of

_FILE = "background.pt"
_CLASSES, _EACH = 200, 20  # of training, which are looked at
_FEW = 10  # with fewer classes there is no background
_AT_ONCE = 100  # examples
_OF_PICTURES = 3.0
"""The weight of the background for features of pictures (docs/experiments.md). Of sentences it is 1."""


def background_of(run: RunFolder, learner: Learner) -> Background | None:
    """Return the classes that a run was trained on; found once and kept in the run folder.

    Returns:
        ``None`` where the training data is not at hand, has no or only a few classes, or where the features of an
        example are not the same in every task: because the body is adapted, or normalises by the support set.
    """
    path, step = run.path / _FILE, run.trained()
    with contextlib.suppress(CheckpointError):
        content = files.load(path, "background")
        trained = content.pop("trained", None)
        if trained == step and (not content or "weight" in content):  # else it was trained on, or this is a former one
            return Background(**content) if content else None
    recipe, found = run.recipe(), None
    with contextlib.suppress(RbmlError):  # adapting works without
        loaded = build.examples(recipe, recipe.data[0], "train", run.read_config()["data_root"])
        if len(recipe.data) == 1 and isinstance(loaded, Labelled) and not build.unlabelled(recipe, "train"):
            found = _background(learner, loaded)
        with contextlib.suppress(RbmlError):  # a folder that cannot be written to: it is found again next time
            files.save(path, "background", {"trained": step} | (found.to_content() if found else {}))
    return found


def _background(learner: Learner, loaded: Labelled) -> Background | None:
    """Return the background of training examples; ``None`` if there is none: see :func:`background_of`."""
    classes = torch.linspace(0, loaded.classes - 1, min(loaded.classes, _CLASSES)).long().tolist()
    places = [torch.nonzero(loaded.y == label).flatten()[:_EACH] for label in classes]
    if len(places) < _FEW or min(map(len, places)) < 1:
        return None
    layer, y = layer_of(learner), torch.cat([torch.full((len(some),), at) for at, some in enumerate(places)])

    def adapted(one: int, two: int) -> Adapted:
        """Adapt to one example each of two classes."""
        return learner.adapt(ready(torch.stack([places[one][0], places[two][0]])), torch.arange(2), ways=2)

    def ready(rows: Tensor) -> Inputs:
        return loaded.modality.ready(each_input(lambda leaf: leaf[rows], loaded.x))

    one, other, seen = adapted(0, 1), adapted(2, 3), ready(torch.stack([places[4][0], places[5][0]]))
    if not torch.equal(features_of(one, layer, seen), features_of(other, layer, seen)):
        return None
    features = [features_of(one, layer, ready(rows)) for rows in torch.split(torch.cat(places), _AT_ONCE)]
    of_pictures = isinstance(loaded.modality, Embedded) and loaded.modality.inner.kind == "pictures"
    return Background.of(torch.cat(features), y, _OF_PICTURES if of_pictures else 1.0)
