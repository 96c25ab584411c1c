"""Few-shot tasks from pictures without labels: the classes are random pictures, and queries are changed copies of them.

Shapes: B tasks, N ways, K shots, Q queries per class, S different pictures of a class, M pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbml import random
from rbml.data.augment import Augmentation
from rbml.data.batch import Batch
from rbml.data.examples import Labelled
from rbml.data.inputs import Arrays, Modality
from rbml.data.targets import CLASSES, Target
from rbml.errors import DataError, UsageError
from rbml.tasks.base import Episodes, task_seeds

STRENGTH = 1.5
"""How strong changes are by default: a query must differ from its picture as two pictures of one class do."""


class RandomClasses:
    """N-way K-shot tasks whose classes are groups of S random pictures; labels are not used.

    The support set of a class has its S pictures as they are, and changed copies of them if K is larger. The queries
    are changed copies. Which pictures and which changes depends on the task's own seed alone.

    Args:
        pictures: a ``Labelled``, whose labels are ignored, or pictures ``(M, c, h, w)``: uint8, or floating point in
            0 .. 1.
        ways: N, classes in a task.
        shots: K, support pictures per class.
        queries: Q, query pictures per class.
        different: S, different pictures per class, at most K.
        augmentation: how pictures are changed.

    Raises:
        UsageError: for numbers below one, inputs that are not pictures, or an augmentation that changes nothing.
        DataError: for fewer than N * S pictures.
    """

    def __init__(
        self,
        pictures: Labelled | Tensor,
        ways: int,
        shots: int,
        queries: int,
        different: int,
        augmentation: Augmentation,
    ) -> None:
        """Check that there are enough pictures."""
        for name, number in (("ways", ways), ("shots", shots), ("queries", queries)):
            if number < 1:
                raise UsageError(f"{name} must be at least 1, not {number}.")
        self.x: Any = pictures.x if isinstance(pictures, Labelled) else pictures
        self.ways, self.shots, self.queries, self.different = ways, shots, queries, different
        self.modality: Modality = pictures.modality if isinstance(pictures, Labelled) else Arrays()
        self.target: Target = CLASSES
        self.outputs = ways
        self.augmentation = augmentation
        if not augmentation.names or augmentation.strength == 0:
            raise UsageError(
                "tasks from pictures without labels need changed copies as queries: name at least one change, such as "
                "--augment affine,elastic for drawings or --augment crop,flip,colour for photographs"
            )
        if isinstance(self.x, Tensor) and self.x.dim() == 2:
            raise UsageError(
                f"these inputs are features {tuple(self.x.shape)}, which cannot be changed as pictures can: make the "
                "classes from clusters of them, --task cactus"
            )
        augmentation.check(self.x)
        if len(self.x) < ways * different:
            raise DataError(
                f"{ways} ways with {different} different pictures each need {ways * different} pictures, but there are "
                f"{len(self.x)}: add pictures, or lower the ways"
            )
        origin = pictures.about if isinstance(pictures, Labelled) else "the user's pictures"
        self.about = f"{len(self.x)} pictures without labels, queries changed by {self._changes}; {origin}"

    def __repr__(self) -> str:
        """Return a description of one line."""
        sizes = f"{self.ways} ways, shots={self.shots}, queries={self.queries}"
        return f"RandomClasses({len(self.x)} pictures, {sizes}, changed by {self._changes})"

    @property
    def names(self) -> list[str]:
        """A name for every picture, which may be a class."""
        return [f"picture {place}" for place in range(len(self.x))]

    def chosen(self, seed: int) -> list[int]:
        """Return for each class of the task of ``seed`` its first picture."""
        return self._rows(seed)[:, 0].tolist()

    @property
    def _changes(self) -> str:
        return f"{', '.join(self.augmentation.names)} (strength {self.augmentation.strength:g})"

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
        """Draw ``count`` tasks: support ``(B, N*K, ...)`` and query ``(B, N*Q, ...)``, targets int64 ``0 .. N-1``."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds: the same seed always gives the same task."""
        return Episodes(*(Batch(self.modality.ready(part.x), part.y) for part in self.stored(seeds)))

    def stored(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds with the inputs as they are stored, changes included."""
        if not seeds:
            raise UsageError("no tasks were asked for: the count must be at least 1.")
        rows = torch.stack([self._rows(seed) for seed in seeds])
        keys = torch.tensor(list(seeds), device=self.x.device)
        support, changed = self._taken(rows, self.shots), None
        if self.shots > self.different:
            changed = self.augmentation(support.flatten(1, 2), random.fold(keys, 0)).view_as(support)
            support = torch.cat([support[:, :, : self.different], changed[:, :, self.different :]], 2)
        query = self._taken(rows, self.queries).flatten(1, 2)
        return Episodes(self._batch(support.flatten(1, 2)), self._batch(self.augmentation(query, random.fold(keys, 1))))

    def _rows(self, seed: int) -> Tensor:
        """Return the pictures ``(N, S)`` of the task of a seed, all different."""
        chosen = np.random.default_rng(seed).choice(len(self.x), self.ways * self.different, replace=False)
        return torch.from_numpy(chosen).view(self.ways, self.different)

    def _taken(self, rows: Tensor, count: int) -> Tensor:
        """Return ``count`` pictures of each class, its S pictures in turn: ``(B, N, count, c, h, w)``."""
        places = rows[:, :, torch.arange(count) % self.different]
        taken: Tensor = self.x.index_select(0, places.flatten().to(self.x.device))
        return taken.view(*places.shape, *taken.shape[1:])

    def _batch(self, x: Tensor) -> Batch:
        y = torch.arange(self.ways, device=x.device).repeat_interleave(x.shape[1] // self.ways)
        return Batch(x, y.expand(len(x), -1).contiguous())


def umtra(
    pictures: Labelled | Tensor,
    ways: int = 5,
    shots: int = 1,
    queries: int = 5,
    augment: str = "auto",
    strength: float = STRENGTH,
) -> RandomClasses:
    """Tasks without labels: every class is one random picture, its queries are changed copies of it (UMTRA).

    Khodadadeh, Boloni and Shah 2019 (arXiv:1811.11819). N pictures are drawn at random; with many classes in the data
    they are probably of N different ones. More than one shot are the picture and changed copies.

    Args:
        pictures: a ``Labelled``, whose labels are ignored, or pictures ``(M, c, h, w)``.
        ways: N, classes in a task.
        shots: K, support pictures per class.
        queries: Q, query pictures per class.
        augment: how copies are changed: auto (what is sensible for the source), or names with commas between them:
            crop, flip, rotation, affine, shift, elastic, colour, erase, zero.
        strength: how much they are changed; 1 is what is usual where there are labels.

    Raises:
        UsageError: for numbers below one, inputs that are not pictures, or an unknown change.
        DataError: for fewer pictures than classes in a task.
    """
    return RandomClasses(pictures, ways, shots, queries, 1, _augmentation(pictures, augment, strength))


def aal(
    pictures: Labelled | Tensor,
    ways: int = 5,
    shots: int = 1,
    queries: int = 5,
    augment: str = "auto",
    strength: float = STRENGTH,
) -> RandomClasses:
    """Tasks without labels: random pictures get random labels, queries are changed copies (Assume, Augment and Learn).

    Antoniou and Storkey 2019 (arXiv:1902.09884). A class is K random pictures, whatever they show; with one shot this
    is UMTRA. Few classes in the data matter less than there, because a class need not be of one kind.

    Args:
        pictures: a ``Labelled``, whose labels are ignored, or pictures ``(M, c, h, w)``.
        ways: N, classes in a task.
        shots: K, support pictures per class, all different.
        queries: Q, query pictures per class.
        augment: how copies are changed, as for umtra.
        strength: how much they are changed; 1 is what is usual where there are labels.

    Raises:
        UsageError: for numbers below one, inputs that are not pictures, or an unknown change.
        DataError: for fewer pictures than support examples in a task.
    """
    return RandomClasses(pictures, ways, shots, queries, max(shots, 1), _augmentation(pictures, augment, strength))


def _augmentation(pictures: Labelled | Tensor, augment: str, strength: float) -> Augmentation:
    usual = pictures.augment if isinstance(pictures, Labelled) else ()
    return Augmentation.of(augment, usual, strength)
