"""Go on from an adapted model without its earlier examples, and find out what that cost the earlier classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from rbml.data.batch import Batch
from rbml.errors import UsageError
from rbml.learner import Adapted
from rbml.training.adapted_file import AdaptedFile, kept_of, save_adapted
from rbml.training.adapting import Trust
from rbml.training.calibration import NARROW, temperature
from rbml.training.estimate import confusion, shared_wilson
from rbml.training.learned import Learned
from rbml.training.running import Remembered, Running, go_on
from rbml.training.unknown import Background, Memory, Usual, grown, layer_of
from rbml.training.usual import Prior


@dataclass(frozen=True)
class Cost:
    """What new classes and examples did to the classes that were known before.

    Every example is predicted by the head of all the others: before among the earlier classes, after among all.

    Attributes:
        truth: the classes of earlier examples ``(m,)``.
        before: what they were taken for before the new examples came, ``(m,)``.
        after: what they are taken for with them, ``(m,)``.
    """

    truth: Tensor
    before: Tensor
    after: Tensor

    def accuracy(self, label: int | None = None) -> tuple[float, float]:
        """Return the accuracy before and after, of one class or of all; not a number without examples."""
        which = torch.ones_like(self.truth, dtype=torch.bool) if label is None else self.truth == label
        first, later = ((found == self.truth)[which].double().mean().item() for found in (self.before, self.after))
        return first, later


@dataclass(frozen=True)
class Grown:
    """What going on came to.

    Attributes:
        adapted: the model.
        learned: the learner that it comes from.
        remembered: what is left of all examples.
        names: of all classes.
        trust: how far to trust its predictions.
        logits: of remembered examples, each without itself, ``(m, C)``; ``None`` if they were not looked at.
        truth: their classes, ``(m,)``.
        cost: what it cost the earlier classes; ``None`` if there are none, or nothing of them can be left out.
    """

    adapted: Adapted
    learned: Learned
    remembered: Remembered
    names: Sequence[str]
    trust: Trust
    logits: Tensor | None
    truth: Tensor
    cost: Cost | None

    def content(self) -> AdaptedFile:
        """Return what its file holds: no examples."""
        file = self.learned.file
        strategy = None if file is None or file.kept is None else file.kept.strategy
        kept = kept_of(self.learned.learner, self.learned.recipe, None, strategy, self.remembered)
        setting, names = self.learned.setting, list(self.names)
        return AdaptedFile(self.adapted, self.learned.recipe, setting, names, kept, self.trust.to_content())

    def relearned(self) -> Learned:
        """Return the learner, with what it remembers now."""
        return self.learned._replace(file=self.content())

    def save(self, path: Path) -> None:
        """Write the file that ``rbml predict`` reads.

        Raises:
            DivergedError: if the model has numbers that are not finite.
            RbmlError: if it cannot be written.
        """
        save_adapted(path, *self.content())

    def accuracy(self) -> tuple[float, float, float] | None:
        """Return how many of the remembered examples are predicted right without themselves, and a 95 % interval.

        ``None`` if there are none.
        """
        if self.logits is None or not len(self.logits):
            return None
        right = (self.logits.argmax(1) == self.truth).double()
        return right.mean().item(), *shared_wilson(right.mean().item(), len(right))

    def confusion(self) -> Tensor:
        """Return how often each class (row) was taken for each class (column), ``(C, C)``."""
        assert self.logits is not None
        return confusion(self.logits.argmax(1), self.truth, len(self.names))


def remembered_of(learned: Learned) -> Remembered | None:
    """Return what the file of a learner remembers, from its examples if it keeps them; ``None`` without a file.

    Raises:
        UsageError: if the learner cannot go on without its examples.
    """
    kept = None if learned.file is None else learned.file.kept
    if kept is None or kept.remembered is not None:
        return None if kept is None else kept.remembered
    assert kept.examples is not None and learned.file is not None
    ready = Batch(learned.setting.modality.ready(kept.examples.x), kept.examples.y)
    return go_on(learned.learner, ready, len(learned.file.names)).remembered


def grow(
    learned: Learned, examples: Batch, names: Sequence[str], prior: Prior | None = None, looking: bool = True
) -> Grown:
    """Learn from more examples, of known or new classes, without the earlier ones.

    The model is that of all examples at once: see :func:`rbml.training.running.go_on`.

    Args:
        learned: the learner; its file says what it remembers so far.
        examples: the new ones alone, inputs as the modality stores them; classes by their places in ``names``.
        names: of all classes: the earlier ones first.
        prior: what is known from the validation tasks of its run.
        looking: whether to find out how well remembered examples are predicted without themselves.

    Raises:
        UsageError: if there is only one class, the targets are not classes, or the learner cannot go on.
    """
    if examples.y.is_floating_point():
        raise UsageError("going on without earlier examples is for classes, but these examples have real values")
    if len(names) < 2:
        raise UsageError(f"there is only one class ({names[0]}): add another one")
    before = remembered_of(learned)
    ready = Batch(learned.setting.modality.ready(examples.x), examples.y)
    running = go_on(learned.learner, ready, len(names), before)
    memory = _memory(learned, running.remembered, None if prior is None else prior.background)
    usual = None if prior is None else prior.usual
    if not looking:
        trust = Trust(1.0 if prior is None else prior.temperature, memory, usual, prior)
        return Grown(running.adapted, learned, running.remembered, names, trust, None, examples.y[:0], None)
    logits, which = running.remembered.left_out(learned.learner)
    truth = running.remembered.y[which]
    own = (1.0, 1.0) if prior is None else (prior.temperature, NARROW)
    trust = Trust(temperature(logits, truth, *own), memory, _usual(running.remembered, memory, usual), prior)
    return Grown(
        running.adapted, learned, running.remembered, names, trust, logits, truth, _cost(learned, before, running)
    )


def _cost(learned: Learned, before: Remembered | None, now: Running) -> Cost | None:
    """Return what the new examples cost; the remembered examples of before are remembered in the same order now."""
    if before is None:
        return None
    logits, which = before.left_out(learned.learner)
    if not len(which):
        return None
    old = Remembered(now.remembered.sums, before.features[which], before.y[which])
    later, _ = old.left_out(learned.learner)
    return Cost(old.y, logits.argmax(1), later.argmax(1))


def _memory(learned: Learned, remembered: Remembered, background: Background | None) -> Memory:
    features, ways = functional.normalize(remembered.features.float()), len(remembered.sums.number)
    return Memory.from_features(layer_of(learned.learner), features, remembered.y, ways, background)


def _usual(remembered: Remembered, memory: Memory, other: Usual | None) -> Usual | None:
    """Return how far remembered examples are from the classes without themselves."""
    features, y, ways = functional.normalize(remembered.features.float()), remembered.y, len(memory.centres)
    members = torch.bincount(y, minlength=ways)[y]
    which = torch.nonzero(members > 1).flatten()
    scores = []
    for place in which.tolist():
        rest = torch.arange(len(y)) != place
        without = Memory.from_features(memory.layer, features[rest], y[rest], ways, memory.background)
        scores.append(without.distance(features[place : place + 1]))
    if not scores:
        return other
    return Usual.of(torch.cat(scores) + grown(members[which]), other)
