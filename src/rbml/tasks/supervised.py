"""Ordinary supervised learning as a task distribution: for pretraining a body on all classes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rbml.data.batch import Batch
from rbml.data.examples import Labelled
from rbml.data.targets import CLASSES
from rbml.errors import UsageError
from rbml.tasks.base import Episodes, generator, task_seeds
from rbml.tasks.few_shot import arrays_of, modality_of


class Supervised:
    """Batches of examples with the labels that they have in the whole data set.

    A task is one such batch: its query examples are the batch; its support set is a single example, which a learner
    without inner steps does not look at. So ``Learner(model, steps=0)`` trained on it is a model trained in the
    ordinary way, by the same loop as every other learner.

    Args:
        arrays: as of :class:`rbml.tasks.FewShot`.
        batch: examples a batch, drawn uniformly with replacement.

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
        self.modality, self.target, self.outputs = modality_of(self.x), CLASSES, len(names)
        self.about = f"{len(names)} classes at once, batches of {batch}"

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
        """Draw ``count`` batches: query ``(B, batch, ...)`` and a support set ``(B, 1, ...)``."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episodes:
        """Return the batches of the given seeds: one is the same whenever its seed is."""
        rows = torch.stack([torch.randint(len(self.y), (self.batch,), generator=generator(seed)) for seed in seeds])
        x, y = self._examples(rows), self.y[rows].to(self.x.device)
        return Episodes(Batch(x[:, :1], y[:, :1]), Batch(x, y))

    def _examples(self, rows: Tensor) -> Tensor:
        examples = self.x.index_select(0, rows.flatten().to(self.x.device))
        examples = examples.float().div_(255) if examples.dtype == torch.uint8 else examples
        return examples.view(*rows.shape, *examples.shape[1:])
