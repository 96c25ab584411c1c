"""Continual learning: streams of classes that come one after another, drawn from labelled arrays.

Shapes: B streams, N ways (classes of a stream), K shots, Q queries per class, b examples per step, R examples to
remember, T = N K / b steps, C classes in the arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from rbml.data.batch import Batch, Inputs, each_input
from rbml.data.datasets import MapStyle
from rbml.data.examples import Labelled
from rbml.errors import UsageError, unknown
from rbml.tasks.base import Stream, task_seeds
from rbml.tasks.few_shot import FewShot

Labels = Literal["local", "global"]


class Continual:
    """Streams whose classes come one after another: all shots of the first class, then all of the second, and so on.

    An example is seen once; the queries are of all classes of the stream, so that the result is good only if early
    classes are not forgotten. With ``remember`` the queries also hold one example each of other classes, so that what
    is learned across streams cannot serve one stream alone (Javed and White 2019, arXiv:1905.12588).

    Classes and examples are drawn as in :class:`rbml.tasks.FewShot`; every stream from its own seed, so that it does
    not depend on the others that are drawn along with it.

    Args:
        arrays: as in :class:`rbml.tasks.FewShot`.
        ways: N, classes in a stream.
        shots: K, examples of a class to learn from, each seen once.
        queries: Q, query examples per class.
        batch: b, examples per step; it must divide ``ways * shots``.
        remember: R, how many other classes have an example among the queries; they need ``labels="global"``. As the
            next one, for training: a run's evaluation is without it.
        labels: ``"local"`` numbers the classes of a stream ``0 .. N-1`` in their order; ``"global"`` gives each class
            its number in the data, so that a model has an output per class of the data.

    Raises:
        UsageError: for numbers below one, a batch that does not divide the stream, more ways than classes, classes to
            remember without global labels, or arrays that do not fit together.
        DataError: for a class with fewer than ``shots + queries`` examples, or examples that cannot be read.

    >>> from rbml.tasks.base import generator
    >>> tasks = Continual((torch.arange(40.0), torch.arange(40) // 10), ways=2, shots=4, queries=1, batch=2)
    >>> stream = tasks.sample(3, generator(0))
    >>> tuple(stream.steps.x.shape), stream.steps.y[0].tolist()
    ((3, 4, 2), [[0, 0], [0, 0], [1, 1], [1, 1]])
    """

    training_only: ClassVar[tuple[str, ...]] = ("remember", "labels")

    def __init__(
        self,
        arrays: Labelled | tuple[Any, Any] | MapStyle,
        ways: int = 10,
        shots: int = 5,
        queries: int = 5,
        batch: int = 1,
        remember: int = 0,
        labels: Labels = "local",
    ) -> None:
        """Check that the data has enough for such streams."""
        if labels not in get_args(Labels):
            raise unknown("choice of labels", str(labels), get_args(Labels))
        if batch < 1 or remember < 0:
            raise UsageError(f"batch must be at least 1 and remember at least 0, not {batch=} and {remember=}.")
        if ways * shots % batch:
            raise UsageError(
                f"batch={batch} does not divide a stream of {ways} classes x {shots} shots = {ways * shots} examples: "
                "choose one that does, because no example is left out."
            )
        if remember and labels == "local":
            raise UsageError(
                f"remember={remember} asks for classes that are not in the stream, which have no number in it: "
                'set labels="global".'
            )
        self._arrays = arrays
        self._drawn = FewShot(arrays, ways + remember, shots, queries)  # the classes to remember come last
        self.classes, self.shots, self.queries = ways, shots, queries
        self.batch, self.remember, self.labels = batch, remember, labels
        self.names, self.about = self._drawn.names, self._drawn.about
        self.modality, self.target = self._drawn.modality, self._drawn.target
        self.ways = self.outputs = ways if labels == "local" else len(self.names)

    def __repr__(self) -> str:
        """Return a description of one line."""
        return (
            f"Continual({self.classes} of {len(self.names)} classes, shots={self.shots}, queries={self.queries}, "
            f"batch={self.batch}, remember={self.remember}, labels={self.labels!r})"
        )

    @property
    def steps(self) -> int:
        """The number of steps of a stream: T."""
        return self.classes * self.shots // self.batch

    def to(self, device: torch.device | str) -> Continual:
        """Return the same streams with the examples on ``device``, where they will be gathered."""
        same = Continual.__new__(Continual)
        same.__dict__.update(self.__dict__)
        same._drawn = self._drawn.to(device)
        return same

    def of_classes(self, ways: int) -> Continual:
        """Return longer or shorter streams of the same classes, with their own labels and nothing to remember.

        Raises:
            UsageError: for more classes than there are, or a batch that does not divide the stream.
        """
        return Continual(self._arrays, ways, self.shots, self.queries, self.batch)

    def sample(self, count: int, generator: torch.Generator) -> Stream:
        """Draw ``count`` streams: steps ``(B, T, b, ...)`` and query ``(B, N*Q + R, ...)``."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Stream:
        """Return the streams of the given seeds: the same seed always gives the same stream."""
        return Stream(*(part._replace(x=self._ready(part)) for part in self.stored(seeds)))

    def stored(self, seeds: Sequence[int]) -> Stream:
        """Return the streams of the given seeds with the inputs as they are stored, in which form they can be shown."""
        support, query = self._drawn.stored(seeds)
        numbers = self._numbers(seeds).to(query.y.device)
        learned, asked = self.classes * self.shots, self.classes * self.queries

        def steps(leaf: Tensor) -> Tensor:
            return leaf[:, :learned].reshape(len(leaf), self.steps, self.batch, *leaf.shape[2:])

        def queries(leaf: Tensor) -> Tensor:
            return torch.cat([leaf[:, :asked], leaf[:, asked :: self.queries]], 1)

        return Stream(
            Batch(each_input(steps, support.x), steps(numbers.repeat_interleave(self.shots, 1))),
            Batch(each_input(queries, query.x), queries(numbers.repeat_interleave(self.queries, 1))),
        )

    def chosen(self, seed: int) -> list[int]:
        """Return the N classes of the stream of ``seed`` in their order; ``names`` has their names."""
        return self._drawn.chosen(seed)[: self.classes]

    def _numbers(self, seeds: Sequence[int]) -> Tensor:
        """Return the labels of the classes of each stream, ``(B, N + R)``."""
        if self.labels == "global":
            return torch.tensor([self._drawn.chosen(seed) for seed in seeds])
        return torch.arange(self.classes).expand(len(seeds), -1)

    def _ready(self, part: Batch) -> Inputs:
        """Return inputs as a model takes them: a modality knows tasks ``(B, n, ...)``, and steps are one dimension."""
        if part.y.dim() == 2:
            return self.modality.ready(part.x)
        ready = self.modality.ready(each_input(lambda leaf: leaf.flatten(1, 2), part.x))
        return each_input(lambda leaf: leaf.reshape(*part.y.shape, *leaf.shape[2:]), ready)
