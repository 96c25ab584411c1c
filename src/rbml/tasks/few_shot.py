"""Few-shot classification: tasks of a few classes each, drawn from labelled arrays.

Shapes: B tasks, N ways (classes of a task), K shots (support examples per class), Q queries per class, M examples in
the arrays, ``...`` the shape of one example.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from rbml import random
from rbml.data.augment import Augmentation
from rbml.data.batch import Batch, Inputs, each_input
from rbml.data.datasets import MapStyle, read_dataset
from rbml.data.examples import Labelled
from rbml.data.inputs import Arrays, Modality
from rbml.data.targets import CLASSES, Target
from rbml.errors import DataError, UsageError
from rbml.tasks import variants
from rbml.tasks.base import Episodes, generator, task_seeds

_LARGE = 4096
"""From so many examples per class on, a task draws its examples one by one and not by a key for each of them."""


class FewShot:
    """N-way K-shot tasks (Vinyals et al., 2016, arXiv:1606.04080).

    A task has N classes in random order, numbered ``0 .. N-1``, and K support and Q query examples of each class, all
    different. Classes and examples are drawn uniformly, without replacement within a task. Examples are in the order of
    their classes: all of class 0 first.

    Every task is drawn from its own seed, so that it does not depend on the others that are drawn along with it. The
    indices are drawn on the CPU; the examples are gathered on the device of ``x``, and the modality prepares them after
    that: pictures in uint8 become float32 ``0 .. 1``.

    Args:
        arrays: a ``Labelled``, or a pair ``(x, y)``: ``x`` is a tensor or array ``(M, ...)``, or a tree of tensors,
            and ``y`` is ``(M,)`` with labels of any kind, strings included. Or a map-style ``torch`` ``Dataset`` of
            pairs, which is read once, here: see :func:`rbml.data.datasets.read_dataset`.
        ways: N, classes in a task.
        shots: K, support examples per class.
        queries: Q, query examples per class.
        augment: random changes of the pictures, support and queries: none, auto (what is sensible for the source), or
            names with commas between them (crop, flip, rotation, affine, shift, elastic, colour, erase, zero). As the
            next three, for training: a run's evaluation is without it.
        strength: how large these changes are; 1 is usual.
        rotate_classes: each class also turned by 90, 180 and 270 degrees, each of these a class of its own: four times
            as many classes.
        mix_classes: the probability with which a class of a task is mixed with another one: 0 never, 1 always.
        turn_classes: every class of a task turned by 0, 90, 180 or 270 degrees at random, support and queries alike:
            augmentation with as many classes as before (Antoniou et al. 2019, arXiv:1810.09502).
        within: all classes of a task from one family, drawn uniformly: an alphabet, where classes have names such as
            ``Greek/character01``. For evaluation too: it is harder, because such classes look alike.

    Raises:
        UsageError: for numbers below one, more ways than classes, arrays that do not fit together, or changes
            that they do not allow.
        DataError: for a class with fewer than ``shots + queries`` examples, or examples that cannot be read.

    >>> tasks = FewShot((torch.arange(40.0), torch.arange(40) // 10), ways=3, shots=1, queries=2)
    >>> episodes = tasks.sample(4, generator(0))
    >>> tuple(episodes.support.x.shape), tuple(episodes.query.x.shape)
    ((4, 3), (4, 6))
    >>> episodes.query.y[0]
    tensor([0, 0, 1, 1, 2, 2])
    """

    training_only: ClassVar[tuple[str, ...]] = ("augment", "strength", "rotate_classes", "mix_classes", "turn_classes")

    def __init__(
        self,
        arrays: Labelled | tuple[Any, Any] | MapStyle,
        ways: int = 5,
        shots: int = 1,
        queries: int = 15,
        augment: str = "none",
        strength: float = 1.0,
        rotate_classes: bool = False,
        mix_classes: float = 0.0,
        turn_classes: bool = False,
        within: bool = False,
    ) -> None:
        """Check that the data has enough for such tasks."""
        for name, number in (("ways", ways), ("shots", shots), ("queries", queries)):
            if number < 1:
                raise UsageError(f"{name} must be at least 1, not {number}.")
        self.ways, self.shots, self.queries = ways, shots, queries
        self.x, y, self.names = arrays_of(arrays)
        self.labels = y
        self.modality: Modality = arrays.modality if isinstance(arrays, Labelled) else Arrays()
        self.target: Target = CLASSES
        self.outputs = ways
        what = "arrays" if isinstance(arrays, tuple) else f"data set {type(arrays).__name__}"
        self.about = arrays.about if isinstance(arrays, Labelled) else f"{len(self.names)} classes of the user's {what}"
        usual = arrays.augment if isinstance(arrays, Labelled) else ()
        self.augmentation = Augmentation.of(augment, usual, strength)
        self.augmentation.check(self.x)
        variants.check(self.x, rotate_classes or turn_classes, mix_classes)
        self.mix_classes, self.turn_classes, self._classes = mix_classes, turn_classes, len(self.names)
        self._counts = torch.bincount(y, minlength=len(self.names))
        _check_counts(self._counts, self.names, shots, queries)
        if rotate_classes:
            self.names = variants.turned_names(self.names)
        if ways > len(self.names):
            raise UsageError(f"{ways} ways need {ways} classes, but the data has {len(self.names)}: lower the ways.")
        self._families = variants.families(self.names, ways) if within else [torch.arange(len(self.names))]
        self._members = torch.argsort(y, stable=True)  # the examples of class c begin at _starts[c]
        self._starts = self._counts.cumsum(0) - self._counts
        self._places = torch.arange(int(self._counts.max()))
        self._large = len(self._places) > _LARGE

    def __repr__(self) -> str:
        """Return a description of one line."""
        return f"FewShot({self.ways} of {len(self.names)} classes, shots={self.shots}, queries={self.queries})"

    def to(self, device: torch.device | str) -> FewShot:
        """Return the same tasks with the examples on ``device``, where they will be gathered."""
        same = FewShot.__new__(FewShot)
        same.__dict__.update(self.__dict__)
        same.x = each_input(lambda leaf: leaf.to(device), self.x)
        return same

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
        """Draw ``count`` tasks: support ``(B, N*K, ...)`` and query ``(B, N*Q, ...)``, targets int64 ``0 .. N-1``."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds: the same seed always gives the same task."""
        support, query = self.stored(seeds)
        return Episodes(*(Batch(self.modality.ready(part.x), part.y) for part in (support, query)))

    def stored(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds with the inputs as they are stored, in which form they can be shown."""
        classes, keys = self._random(seeds)
        support, query = self._inputs(classes, keys)
        if self.mix_classes:
            share = variants.shares(seeds, self.ways, self.mix_classes)
            others = self._inputs(variants.partners(seeds, self.ways, len(self.names)), keys)
            support, query = (
                variants.mixed(x, other, share) for x, other in zip((support, query), others, strict=True)
            )
        if self.turn_classes:
            turns = variants.turns(seeds, self.ways)
            support, query = variants.turned(support, turns), variants.turned(query, turns)
        if self.augmentation.names:
            key = torch.tensor(list(seeds), device=device_of(self.x))
            support, query = (self.augmentation(x, random.fold(key, at)) for at, x in enumerate((support, query)))
        return Episodes(self._batch(support), self._batch(query))

    def chosen(self, seed: int) -> list[int]:
        """Return the N classes of the task of ``seed`` in the order of its targets; ``names`` has their names."""
        return self._chosen(generator(seed)).tolist()

    def indices(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the rows of ``x`` that the tasks hold: support ``(B, N*K)`` and query ``(B, N*Q)``, on the CPU."""
        return self._rows(*self._random(seeds))

    def _rows(self, classes: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        chosen = classes % self._classes  # a turned class has the examples of the class itself
        if self._large:
            places = _distinct(keys, self._counts[chosen])
        else:
            ranks = keys.masked_fill(self._places >= self._counts[chosen][..., None], 2.0)
            places = ranks.topk(self.shots + self.queries, largest=False).indices
        rows = self._members[self._starts[chosen][..., None] + places]
        return rows[..., : self.shots].flatten(1), rows[..., self.shots :].flatten(1)

    def _random(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Draw the tasks' classes ``(B, N)`` and random keys in ``0 .. 1``.

        There is a key for every example that a class may have, or, where classes are large, for every one of the task.

        Raises:
            UsageError: if no tasks were asked for.
        """
        if not seeds:
            raise UsageError("no tasks were asked for: the count must be at least 1.")
        classes, keys = [], []
        each = self.shots + self.queries if self._large else len(self._places)
        for source in map(generator, seeds):
            classes.append(self._chosen(source))
            # The examples with the smallest keys are taken. In double precision: float32 has only 2**24 different keys.
            keys.append(torch.rand(self.ways, each, generator=source, dtype=torch.float64))
        return torch.stack(classes), torch.stack(keys)

    def _chosen(self, source: torch.Generator) -> Tensor:
        """Draw the N classes of a task."""
        several = len(self._families) > 1
        family = self._families[int(torch.randint(len(self._families), (), generator=source)) if several else 0]
        return family[torch.randperm(len(family), generator=source)[: self.ways]]

    def _inputs(self, classes: Tensor, keys: Tensor) -> tuple[Any, Any]:
        """Return the stored inputs of classes ``(B, N)``, turned ones included: support and query."""
        support, query = (self._gathered(rows) for rows in self._rows(classes, keys))
        if len(self.names) > self._classes:
            turns = classes // self._classes
            support, query = variants.turned(support, turns), variants.turned(query, turns)
        return support, query

    def _gathered(self, rows: Tensor) -> Any:
        def gather(leaf: Tensor) -> Tensor:
            return leaf.index_select(0, rows.flatten().to(leaf.device)).view(*rows.shape, *leaf.shape[1:])

        return each_input(gather, self.x)

    def _batch(self, x: Any) -> Batch:
        tasks, count = (x if isinstance(x, Tensor) else next(iter(x.values()))).shape[:2]
        y = torch.arange(self.ways, device=device_of(x)).repeat_interleave(count // self.ways)
        return Batch(x, y.expand(tasks, -1).contiguous())


def _distinct(keys: Tensor, counts: Tensor) -> Tensor:
    """Return places ``(..., n)`` below counts ``(...)``, all different and uniform, from keys ``(..., n)`` in 0 .. 1.

    The i-th key chooses among the places that are left; its number among those becomes a place by stepping over the
    ones that were chosen before, the smallest first.
    """
    taken = keys.new_empty(*keys.shape[:-1], 0, dtype=torch.int64)
    found = []
    for i, key in enumerate(keys.unbind(-1)):
        place = torch.minimum((key * (counts - i)).long(), counts - i - 1)
        for before in taken.unbind(-1):
            place = place + (place >= before)
        found.append(place)
        taken = torch.cat([taken, place[..., None]], -1).sort(-1).values
    return torch.stack(found, -1)


def arrays_of(arrays: Labelled | tuple[Any, Any] | MapStyle) -> tuple[Inputs, Tensor, list[str]]:
    """Return ``x``, ``y`` as int64 ``0 .. C-1`` on the CPU, and the class names.

    Raises:
        UsageError: if they do not fit together, or are no numbers.
        DataError: for a data set with an example that cannot be read.
    """
    if isinstance(arrays, Labelled):
        x, y, names = arrays.x, arrays.y.cpu(), arrays.names
    else:
        x, y, names = _relabelled(*(arrays if isinstance(arrays, tuple) else read_dataset(arrays)))
    for leaf in x.values() if isinstance(x, dict) else [x]:
        if y.ndim != 1 or len(leaf) != len(y):
            raise UsageError(f"expected x (M, ...) and y (M,), but x.shape={tuple(leaf.shape)} and {tuple(y.shape)=}.")
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(names):
        span = f"{int(y.min())} to {int(y.max())}"
        raise UsageError(f"{len(names)} class names need labels in 0 .. {len(names) - 1}, but they run from {span}.")
    return x, y, names


def device_of(x: Inputs) -> torch.device:
    """Return the device of inputs."""
    return x.device if isinstance(x, Tensor) else next(iter(x.values())).device


def _relabelled(x: Any, y: Any) -> tuple[Inputs, Tensor, list[str]]:
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    try:
        x = {name: torch.as_tensor(leaf) for name, leaf in x.items()} if isinstance(x, dict) else torch.as_tensor(x)
    except TypeError as error:
        raise UsageError(f"x must hold numbers: {error}") from None
    kinds, places = np.unique(labels, return_inverse=True)
    return x, torch.as_tensor(places.reshape(labels.shape), dtype=torch.int64), [str(kind) for kind in kinds.tolist()]


def _check_counts(counts: Tensor, names: list[str], shots: int, queries: int) -> None:
    short = torch.nonzero(counts < shots + queries).flatten().tolist()
    if not short:
        return
    others = f" (and {len(short) - 1} more classes have too few)" if len(short) > 1 else ""
    raise DataError(
        f"class {names[short[0]]!r} has {int(counts[short[0]])} examples, but {shots} shots and {queries} queries need "
        f"{shots + queries}{others}: lower the queries, or leave such classes out."
    )
