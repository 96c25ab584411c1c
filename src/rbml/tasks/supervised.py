"""Ordinary supervised learning as a task distribution: for pretraining a body on all classes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rbml.data.batch import Batch, each_input
from rbml.data.examples import Labelled
from rbml.data.inputs import Arrays, Modality
from rbml.data.targets import CLASSES, Target
from rbml.errors import UsageError
from rbml.tasks.base import Episodes, generator, task_seeds
from rbml.tasks.few_shot import arrays_of, device_of


class Supervised:
    """Batches of examples with their labels in the whole data set.

    A task is one such batch, as its queries; its support set is a single example, which a learner without inner steps
    does not use. So ``Learner(model, steps=0)`` trained on it is a model trained in the ordinary way, by the same loop
    as every other learner.

    Args:
        arrays: as in :class:`rbml.tasks.FewShot`.
        batch: examples per batch, drawn uniformly with replacement.

    Raises:
        UsageError: for a number below one, or arrays that do not fit together.

    >>> tasks = Supervised((torch.arange(40.0), torch.arange(40) // 10), batch=8)
    >>> tuple(tasks.sample(2, generator(0)).query.x.shape), tasks.classes
    ((2, 8), 4)
    """

    def __init__(self, arrays: Labelled | tuple[Any, Any], batch: int = 64) -> None:
        """Check the arrays."""
        if batch < 1:
            raise UsageError(f"batch must be at least 1, not {batch}.")
        self.x, self.y, names = arrays_of(arrays)
        self.classes, self.batch = len(names), batch
        self.modality: Modality = arrays.modality if isinstance(arrays, Labelled) else Arrays()
        self.target: Target = CLASSES
        self.outputs = self.classes
        self.about = arrays.about if isinstance(arrays, Labelled) else f"{self.classes} classes of the user's arrays"

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
        """Draw ``count`` batches: query ``(B, batch, ...)`` and a support set ``(B, 1, ...)``."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episodes:
        """Return the batches of the given seeds: the same seed always gives the same batch."""
        stored = self.stored(seeds)
        return Episodes(*(Batch(self.modality.ready(part.x), part.y) for part in (stored.support, stored.query)))

    def stored(self, seeds: Sequence[int]) -> Episodes:
        """Return the batches of the given seeds with the inputs as they are stored."""
        rows = torch.stack([torch.randint(len(self.y), (self.batch,), generator=generator(seed)) for seed in seeds])

        def gather(leaf: Tensor) -> Tensor:
            return leaf.index_select(0, rows.flatten().to(leaf.device)).view(*rows.shape, *leaf.shape[1:])

        query = Batch(each_input(gather, self.x), self.y[rows].to(device_of(self.x)))
        return Episodes(Batch(each_input(lambda leaf: leaf[:, :1], query.x), query.y[:, :1]), query)
