"""Adapt a learner to a user's examples, and find out how far to trust the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rbml.data.batch import Batch, Inputs
from rbml.errors import UsageError
from rbml.learner import Adapted, Learner
from rbml.training.adapted_file import AdaptedFile, kept_of, save_adapted
from rbml.training.calibration import NARROW, temperature
from rbml.training.estimate import Advance, Estimate, estimate
from rbml.training.learned import Learned
from rbml.training.semi_supervised import WithUnlabelled
from rbml.training.unknown import Background, Memory, Usual, grown, layer_of
from rbml.training.usual import Prior


@dataclass(frozen=True)
class Trust:
    """How far to trust the predictions of an adapted model.

    Attributes:
        temperature: logits are divided by it before they become probabilities.
        memory: what it remembers of its support set; ``None`` for targets that are not classes.
        usual: how far known examples are from that memory; ``None`` if it is not known.
        prior: what is known from the validation tasks of its run, for the day when examples are added.
    """

    temperature: float = 1.0
    memory: Memory | None = None
    usual: Usual | None = None
    prior: Prior | None = None

    def to_content(self) -> dict[str, Any]:
        """Return its values for a file."""
        return {
            "temperature": self.temperature,
            "memory": None if self.memory is None else self.memory.to_content(),
            "usual": None if self.usual is None else self.usual.to_content(),
            "prior": None if self.prior is None else self.prior.to_json(),
        }

    @staticmethod
    def from_content(values: Mapping[str, Any]) -> Trust:
        """Return what :meth:`to_content` gave; of an empty table, as older files have it, the plain default."""
        memory, prior = values.get("memory"), values.get("prior")
        known = None if memory is None else Memory.from_content(memory)
        return Trust(
            values.get("temperature", 1.0),
            known,
            Usual.from_content(values.get("usual")),
            None if prior is None else Prior.from_json(prior, None if known is None else known.background),
        )


@dataclass(frozen=True)
class Outcome:
    """What adapting came to.

    Attributes:
        adapted: the model.
        learned: the learner that it comes from.
        examples: those that it learned from, inputs as the modality stores them.
        names: of the classes or values.
        trust: how far to trust its predictions.
        estimate: how well new examples are likely to be predicted; ``None`` if nothing could be left out.
    """

    adapted: Adapted
    learned: Learned
    examples: Batch
    names: Sequence[str]
    trust: Trust
    estimate: Estimate | None

    def content(self) -> AdaptedFile:
        """Return what its file holds."""
        before = None if self.learned.file is None else self.learned.file.kept
        strategy = None if before is None else before.strategy
        recipe, setting = self.learned.recipe, self.learned.setting
        kept = kept_of(self.learned.learner, recipe, self.examples, strategy)
        return AdaptedFile(self.adapted, recipe, setting, list(self.names), kept, self.trust.to_content())

    def relearned(self) -> Learned:
        """Return the learner, with these examples as those that it knows."""
        return self.learned._replace(file=self.content())

    def save(self, path: Path) -> None:
        """Write the file that ``rbml predict`` reads.

        Raises:
            DivergedError: if the model has numbers that are not finite.
            RbmlError: if it cannot be written.
        """
        save_adapted(path, *self.content())


def joined(learned: Learned, stored: Any, labels: Sequence[Any]) -> tuple[Batch, list[str]]:
    """Return the examples of an adapted file with new ones behind them, and the names of all classes or values.

    Args:
        learned: the learner, with its file.
        stored: the inputs of the new examples, as the modality reads them.
        labels: one per new example; classes may be new.

    Raises:
        DataError: for a label that cannot be understood.
    """
    assert learned.file is not None and learned.file.kept is not None and learned.file.kept.examples is not None
    old, (y, names) = learned.file.kept.examples, labelled(learned, labels)
    if isinstance(stored, Tensor):
        return Batch(torch.cat([old.x, stored]), torch.cat([old.y, y])), names
    return Batch({name: _stacked(old.x[name], leaf) for name, leaf in stored.items()}, torch.cat([old.y, y])), names


def labelled(learned: Learned, labels: Sequence[Any]) -> tuple[Tensor, list[str]]:
    """Return the targets of new examples of an adapted file, and the names of all classes or values, new ones last.

    Raises:
        DataError: for a label that cannot be understood.
    """
    assert learned.file is not None
    names = list(learned.file.names)
    if learned.setting.target.kind == "classes":
        names += sorted({str(label) for label in labels} - set(names))
    return learned.setting.target.read(labels, names)


def _stacked(old: Tensor, new: Tensor) -> Tensor:
    """Put examples one below the other; texts that are shorter are padded with zeros."""
    width = max(old.shape[-1], new.shape[-1])
    return torch.cat([nn.functional.pad(leaf, (0, width - leaf.shape[-1])) for leaf in (old, new)])


def adapt(
    learned: Learned,
    examples: Batch,
    names: Sequence[str],
    prior: Prior | None = None,
    features: Mapping[str, Tensor] | None = None,
    estimating: bool = True,
    advance: Advance = lambda count: None,
    unlabelled: Inputs | None = None,
    comparing: bool = True,
) -> Outcome:
    """Adapt to labelled examples, and again without a part of them in turn: cross-validation.

    Args:
        learned: the learner.
        examples: inputs as the modality stores them, targets as the target reads them.
        names: of the classes or values.
        prior: what is known from the validation tasks of its run.
        features: what the baselines look at, by name.
        estimating: whether to learn again without a part; without it, the prior alone says how far to trust the model.
        advance: called with the number of examples that were predicted by a model that had not seen them.
        unlabelled: ready inputs of classes to learn from beside them (:mod:`rbml.training.semi_supervised`). They are
            not kept with the model.
        comparing: whether the estimate has the baselines of the target beside it, which take longer than the learner.

    Raises:
        UsageError: if the examples do not fit the model, or have only one class.
    """
    setting, learner = learned.setting, learned.learner
    classes = not examples.y.is_floating_point()
    if classes and len(names) < 2:
        raise UsageError(f"there is only one class ({names[0]}): add another one")
    ways = len(names) if classes else None
    support = Batch(setting.modality.ready(examples.x), examples.y)
    helped = learner if unlabelled is None or ways is None else WithUnlabelled(learner, unlabelled)
    adapted = helped.adapt(*support, ways=ways)
    with torch.no_grad():
        setting.target.check(adapted(support.x).cpu(), support)
    background = None if prior is None else prior.background
    judge = _Judge(helped, ways, layer_of(learner), background)
    target = setting.target if comparing else replace(setting.target, baselines={})
    found = estimate(judge, support, target, features, ways, advance) if estimating else None
    if found is not None and prior is not None and prior.shots == typical(examples.y):
        found = found.with_gain(prior.fewer, prior.accuracy, prior.noise)
    if ways is None:
        return Outcome(adapted, learned, examples, names, Trust(), found)
    layer = layer_of(learner)
    usual = _usual(found, judge, examples.y, prior)
    memory = Memory.of(adapted, layer, support, ways, background)
    trust = Trust(_temperature(found, prior), memory, usual, prior)
    return Outcome(adapted, learned, examples, names, trust, found)


def typical(y: Tensor) -> int:
    """Return the median number of examples per class."""
    return int(torch.bincount(y).median())


class _Judge:
    """Adapts and predicts as :func:`rbml.training.estimate.adapting` does, and keeps the scores of the queries."""

    def __init__(
        self, learner: Learner | WithUnlabelled, ways: int | None, layer: str, background: Background | None
    ) -> None:
        self.learner, self.ways, self.layer, self.background = learner, ways, layer, background
        self.scores: list[Tensor] = []

    def __call__(self, rest: Batch, queries: Batch) -> Tensor:
        adapted = self.learner.adapt(*rest, ways=self.ways)
        with torch.no_grad():
            prediction: Tensor = adapted(queries.x).cpu()
        if self.ways is not None:
            memory = Memory.of(adapted, self.layer, rest, self.ways, self.background)
            self.scores.append(memory.score(adapted, queries.x))
        return prediction


def _temperature(found: Estimate | None, prior: Prior | None) -> float:
    logits, y = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    if found is not None:
        logits, y = found.left.prediction, found.left.truth.y
    return temperature(logits, y) if prior is None else temperature(logits, y, prior.temperature, NARROW)


def _usual(found: Estimate | None, judge: _Judge, y: Tensor, prior: Prior | None) -> Usual | None:
    other = None if prior is None else prior.usual
    if found is None:
        return other
    members = torch.bincount(y)[found.left.truth.y]
    first = torch.cat(judge.scores)[: len(members)]  # of the first pass: the same example again is no further one
    return Usual.of(first + grown(members), other)
