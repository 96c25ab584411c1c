"""Go on learning from more examples without the earlier ones: a head made from running sums is all that is kept."""

from __future__ import annotations

from typing import NamedTuple

import torch

from rbml.autodiff import module
from rbml.data.batch import Batch
from rbml.errors import UsageError
from rbml.learner import Adapted, Learner
from rbml.learner.binding import head_layer
from rbml.strategy import Features
from rbml.strategy.lda import Sums, discriminant
from rbml.tasks import Episode
from rbml.tree import under


class Running(NamedTuple):
    """A model that has learned from all examples so far, and what it needs to learn from more.

    Attributes:
        adapted: the model.
        sums: what is remembered of the examples: their numbers, sums and products, by class.
    """

    adapted: Adapted
    sums: Sums


def go_on(learner: Learner, examples: Batch, ways: int, before: Running | None = None) -> Running:
    """Learn from more examples, of known or of new classes, without those that were learned from before.

    The result is that of all examples at once, whatever their order: nothing is forgotten, but the classes must share
    what the features can tell apart. Memory: d numbers per class and d * d for all, whatever the number of examples.

    Args:
        learner: one whose head is streaming LDA (:func:`rbml.algorithms.streaming_lda`), without inner steps.
        examples: the new examples ``(n, ...)``; classes keep their numbers, and new ones follow.
        ways: C, the number of all classes, old and new.
        before: the result of the last call; ``None`` at first.

    Raises:
        UsageError: if the learner has another head or takes steps, its features depend on the other examples of a
            batch (batch norm without stored statistics), or there are more classes than ``ways``.
    """
    start = learner.strategy.start
    if start is None or start.origin is None or start.origin.by != "lda" or learner.steps:
        raise UsageError(
            "going on without earlier examples needs a head from running sums: rbml.algorithms.streaming_lda"
        )
    if learner.statistics != "running" and next(module.batch_norms(learner.model), None) is not None:
        raise UsageError("batch norm makes features depend on the other examples: use statistics='running' or no norm")
    known = 0 if before is None else len(before.sums.number)
    if max(known, int(examples.y.max()) + 1) > ways:
        raise UsageError(
            f"ways={ways}, but there are {max(known, int(examples.y.max()) + 1)} classes with the new ones"
        )
    layer = head_layer(learner.model, learner.head)
    bound = learner.bind(Episode(examples, examples), ways=ways)
    stored = module.running_statistics(learner.model) if learner.statistics == "running" else {}
    with torch.no_grad():
        whole = bound.whole({}, {}, 0)
        counts = examples.mask.get("example")
        found = module.inputs_of(learner.model, whole, examples.x, layer, stored or None, counts)
        sums = Sums.of(Features(found, examples.y, ways, counts))
        sums = sums if before is None else before.sums.plus(sums)
        values = learner.strategy.values(start, under(bound.own, "phi."), {}, 0)
        weight, bias = discriminant(sums, values["shrink"][""], values["scale"][""])
    return Running(Adapted(learner.model, whole | {f"{layer}.weight": weight, f"{layer}.bias": bias}, stored), sums)
