"""The file of an adapted model, which ``rbml adapt`` writes and ``rbml predict`` reads."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rbml.data.batch import Batch
from rbml.data.setting import Setting
from rbml.errors import CheckpointError, DivergedError
from rbml.learner import Adapted, Learner
from rbml.recipe import Recipe, StrategyChoice, build
from rbml.strategy.lda import Sums
from rbml.training import files
from rbml.training.run_folder import restore, to_be_restored
from rbml.training.running import Remembered
from rbml.tree import Tree


class Kept(NamedTuple):
    """What a file keeps besides the model, so that more examples and classes can be added to it.

    Attributes:
        learner: theta0 and phi: the state of the learner.
        examples: the labelled examples, with their inputs as the modality stores them; ``None`` if the file keeps none.
        strategy: the strategy file that the recipe names, byte by byte; ``None`` if it names none.
        remembered: what is left of the examples where the file keeps none: see :mod:`rbml.training.running`.
    """

    learner: Tree
    examples: Batch | None
    strategy: Tensor | None = None
    remembered: Remembered | None = None

    def counts(self) -> list[int]:
        """Return how many examples of each class were learned from; classes at the end may be missing."""
        if self.remembered is not None:
            return [int(number) for number in self.remembered.sums.number.tolist()]
        assert self.examples is not None
        return torch.bincount(self.examples.y).tolist()


class AdaptedFile(NamedTuple):
    """The content of a file of an adapted model.

    Attributes:
        adapted: the model.
        recipe: the recipe of the run that it comes from.
        setting: its inputs and targets.
        names: the names of the classes or values, in the order of its outputs.
        kept: the learner and the examples; ``None`` in a file of rbml 0.1.0.
        trust: how far to trust its predictions, as plain values: see :class:`rbml.training.calibration.Trust`.
    """

    adapted: Adapted
    recipe: Recipe
    setting: Setting
    names: list[str]
    kept: Kept | None = None
    trust: Mapping[str, Any] = {}

    def learner(self) -> Learner:
        """Return the learner from which the model was adapted.

        Raises:
            CheckpointError: if the file was written by an rbml that did not keep it.
        """
        if self.kept is None:
            raise CheckpointError(
                "this file of an adapted model holds no learner, as an older rbml wrote it: make it again with "
                "rbml adapt, from the run that it came from"
            )
        recipe = to_be_restored(self.recipe)
        if self.kept.strategy is None:
            learner = build.learner(recipe, self.setting)
        else:
            with tempfile.TemporaryDirectory() as folder:  # strategies are read from files
                path = Path(folder) / "strategy.pt"
                path.write_bytes(self.kept.strategy.numpy().tobytes())
                learner = build.learner(recipe.changed(strategy_file=str(path)), self.setting)
        restore(learner, dict(self.kept.learner), Path("the file of the adapted model"))
        return learner


def kept_of(
    learner: Learner,
    recipe: Recipe,
    examples: Batch | None,
    strategy: Tensor | None = None,
    remembered: Remembered | None = None,
) -> Kept:
    """Return what a file keeps of a learner.

    Args:
        learner: the learner.
        recipe: the recipe of the run that it comes from.
        examples: those that it learned from ``(n, ...)``, inputs as stored; ``None`` keeps none.
        strategy: the strategy file that the recipe names, if it is known; ``None`` reads it.
        remembered: what is left of the examples, if none are kept.
    """
    file = recipe.strategy.file
    if strategy is None and file is not None:
        strategy = torch.frombuffer(bytearray(Path(file).read_bytes()), dtype=torch.uint8)
    return Kept({name: leaf.detach() for name, leaf in learner.state_dict().items()}, examples, strategy, remembered)


def save_adapted(
    path: Path,
    adapted: Adapted,
    recipe: Recipe,
    setting: Setting,
    names: Sequence[str],
    kept: Kept | None = None,
    trust: Mapping[str, Any] | None = None,
) -> None:
    """Write an adapted model with what is needed to use it.

    Args:
        path: the file.
        adapted: the model.
        recipe: the recipe of the run that it comes from.
        setting: the setting of that run.
        names: the names of the classes or values, in the order of its outputs.
        kept: the learner and the examples, of :func:`kept_of`; without them nothing can be added to the file later.
        trust: how far to trust its predictions.

    Raises:
        DivergedError: if the model has numbers that are not finite: its predictions would be meaningless.
        RbmlError: if it cannot be written.
    """
    state = dict(adapted.model.state_dict())
    if bad := [name for name, leaf in state.items() if not torch.isfinite(leaf).all()]:
        raise DivergedError(
            f"learning from these examples made {bad[0]} of the model not finite: {path} is not written. "
            "Train a run with a smaller lr"
        )
    content: dict[str, Any] = {"recipe": recipe.to_json(), "setting": setting.to_json(), "names": list(names)}
    if kept is not None:
        content["learner"], content["strategy"] = kept.learner, kept.strategy
        if kept.examples is not None:
            content["x"], content["y"] = kept.examples.x, kept.examples.y
        if kept.remembered is not None:
            content["remembered"] = _flat(kept.remembered)
        # What the task left as it was is in the learner already: a backbone is not stored twice.
        state = {name: leaf for name, leaf in state.items() if not _same(leaf, kept.learner.get(f"model.{name}"))}
    files.save(path, "adapted", content | {"model": state, "trust": dict(trust or {})})


def _flat(remembered: Remembered) -> Tree:
    return {**remembered.sums._asdict(), "features": remembered.features, "y": remembered.y}


def _remembered(flat: Tree | None) -> Remembered | None:
    if flat is None:
        return None
    return Remembered(Sums(*(flat[name] for name in Sums._fields)), flat["features"], flat["y"])


def _same(leaf: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(leaf.cpu(), other.cpu())  # a file that was read lies on the processor


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
    kept = None
    if "learner" in content:
        examples = Batch(content["x"], content["y"]) if "x" in content else None
        kept = Kept(content["learner"], examples, content["strategy"], _remembered(content.get("remembered")))
        state = {name: content["learner"].get(f"model.{name}") for name in own} | state
        state = {name: leaf for name, leaf in state.items() if leaf is not None}
    if own.keys() != state.keys():
        raise CheckpointError(f"{path} belongs to another model than it says: {sorted(own.keys() ^ state.keys())}")
    parameters = {name: state[name] for name, _ in model.named_parameters()}
    statistics = {name: leaf for name, leaf in state.items() if name not in parameters}
    adapted = Adapted(model, parameters, statistics)
    return AdaptedFile(adapted, recipe, setting, content["names"], kept, content.get("trust", {}))


def _model(recipe: Recipe, setting: Setting) -> nn.Module:
    """Return the model as the algorithm uses it: a preset may have added layers to it."""
    preset = recipe.model_copy(update={"strategy": StrategyChoice()}).changed(lr=None, steps=None)
    return build.learner(to_be_restored(preset), setting).model
