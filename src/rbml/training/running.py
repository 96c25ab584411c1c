"""Go on learning from more examples without the earlier ones: a head made from running sums is all that is kept."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rbml.autodiff import module
from rbml.data.batch import Batch
from rbml.devices import placed
from rbml.errors import UsageError
from rbml.learner import Adapted, Learner
from rbml.learner.binding import head_layer
from rbml.strategy import Features
from rbml.strategy.lda import Sums, discriminant, left_out
from rbml.tasks import Episode
from rbml.tree import under

SAMPLE = 20
"""Of how many examples per class the features are remembered, to find out how well they are still known."""


class Remembered(NamedTuple):
    """What is remembered of the examples so far.

    Attributes:
        sums: their numbers, sums and products, by class, in float64.
        features: those of the first :data:`SAMPLE` examples of each class, ``(m, d)``, for measuring alone.
        y: the classes of these, ``(m,)``.
    """

    sums: Sums
    features: Tensor
    y: Tensor

    @staticmethod
    def of(features: Tensor, y: Tensor, ways: int, before: Remembered | None = None) -> Remembered:
        """Return what is remembered of some examples ``(n, d)``, and of those before them."""
        features = features.double()
        sums = Sums.of(Features(features, y, ways))
        if before is not None:
            sums = before.sums.plus(sums)
            features, y = torch.cat([before.features, features]), torch.cat([before.y, y])
        which = torch.cat([torch.nonzero(y == label).flatten()[:SAMPLE] for label in range(ways)]).sort().values
        return Remembered(sums, features[which], y[which])

    def left_out(self, learner: Learner) -> tuple[Tensor, Tensor]:
        """Return logits ``(m, C)`` of the remembered examples, each without itself, and which they are, ``(m,)``.

        Examples that are the only one of their class are not among them.
        """
        which = torch.nonzero(self.sums.number[self.y] > 1).flatten()
        seen = Features(self.features[which], self.y[which], len(self.sums.number))
        return left_out(self.sums, seen, *_numbers(learner)), which


class Running(NamedTuple):
    """A model that has learned from all examples so far, and what it needs to learn from more.

    Attributes:
        adapted: the model.
        remembered: what is left of the examples.
    """

    adapted: Adapted
    remembered: Remembered


def check_running(learner: Learner) -> None:
    """Refuse a learner that cannot go on without its earlier examples.

    Raises:
        UsageError: if its head is not streaming LDA, it takes steps, or its features depend on the other examples of a
            batch (batch norm without stored statistics).
    """
    start = learner.strategy.start
    if start is None or start.origin is None or start.origin.by != "lda" or learner.steps:
        raise UsageError(
            "going on without earlier examples needs a head from running sums: that of a run that was trained with "
            "--algorithm streaming_lda (rbml.algorithms.streaming_lda)"
        )
    if learner.statistics != "running" and next(module.batch_norms(learner.model), None) is not None:
        raise UsageError(
            "going on without earlier examples: batch norm makes features depend on the other examples; train with "
            "--statistics running, or a model without batch norm"
        )


def go_on(learner: Learner, examples: Batch, ways: int, before: Remembered | None = None) -> Running:
    """Learn from more examples, of known or of new classes, without those that were learned from before.

    The result is that of all examples at once, whatever their order: nothing is forgotten, but the classes must share
    what the features can tell apart. Memory: :data:`SAMPLE` times d numbers per class and d * d for all, whatever the
    number of examples.

    Args:
        learner: one whose head is streaming LDA (:func:`rbml.algorithms.streaming_lda`), without inner steps.
        examples: the new examples ``(n, ...)``; classes keep their numbers, and new ones follow.
        ways: C, the number of all classes, old and new.
        before: what the last call remembered; ``None`` at first.

    Raises:
        UsageError: if the learner is another one (:func:`check_running`), or there are more classes than ``ways``.
    """
    check_running(learner)
    known = 0 if before is None else len(before.sums.number)
    most = max(known, int(examples.y.max()) + 1)
    if most > ways:
        raise UsageError(f"ways={ways}, but there are {most} classes with the new ones")
    layer = head_layer(learner.model, learner.head)
    bound = learner.bind(Episode(examples, examples), ways=ways)
    stored = module.running_statistics(learner.model) if learner.statistics == "running" else {}
    with torch.no_grad():
        whole = bound.whole({}, {}, 0)
        found = module.inputs_of(learner.model, whole, placed(examples.x, learner.device), layer, stored or None).cpu()
        remembered = Remembered.of(found, examples.y, ways, before)
        head = discriminant(remembered.sums, *_numbers(learner))
        named = zip((f"{layer}.weight", f"{layer}.bias"), head, strict=True)
        own = {name: leaf.to(found.dtype) for name, leaf in named}
    return Running(Adapted(learner.model, whole | own, stored), remembered)


def _numbers(learner: Learner) -> tuple[Tensor, Tensor]:
    """Return what the learner has learned of its head, on the processor: how much to shrink, and the scale."""
    start = learner.strategy.start
    assert start is not None
    with torch.no_grad():
        values = learner.strategy.values(start, under(dict(learner.named_parameters()), "phi."), {}, 0)
        return values["shrink"][""].detach().cpu(), values["scale"][""].detach().cpu()
