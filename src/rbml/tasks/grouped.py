"""Few-shot regression: one task per group (a patient, a machine), drawn from grouped examples.

Shapes: B tasks, G groups, K shots, Q queries, d targets, N examples in all, ``...`` the shape of one example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from rbml.data.batch import Batch, each_input
from rbml.data.examples import Grouped
from rbml.data.inputs.base import Modality
from rbml.data.targets.base import Target
from rbml.errors import DataError, UsageError, unknown
from rbml.tasks.base import Episodes, generator, task_seeds

Order = Literal["random", "time"]

_CHANGE = 2  # a stream of a task's seed, besides those from which its group and its examples are drawn


class PerGroup:
    """K-shot tasks of one group each.

    A task is a group, drawn uniformly, with K support and Q query examples of it, all different. With
    ``order="random"`` both are drawn uniformly. With ``"time"`` the support set is the K earliest examples of the
    group, and the queries are drawn from the later ones: the future is predicted from the past.

    Targets are as a model learns them, ``grouped.target.scaled(y)``.

    Every task comes from its own seed, so it does not depend on how many are drawn along with it.

    Args:
        grouped: the examples.
        shots: K, support examples.
        queries: Q, query examples.
        order: ``"random"`` or ``"time"``.
        shift: how much is added at random to all targets of a task: the standard deviation, in the units that a model
            learns in (of a table: standard deviations of the training targets). Where it is large, the level of a group
            must be read from the support set (Rajendran, Irpan and Jang 2020, arXiv:2007.05549). As the next one, for
            training: a run's evaluation is without it.
        stretch: how much the differences between the targets of a task are changed: they are multiplied by a factor of
            mean 1 and this standard deviation, around the mean of the support set. Few groups look too much alike; with
            it, what a learner knows of uncertainty holds for new ones too.

    Raises:
        UsageError: for numbers below one, an unknown order, ``"time"`` for examples that have no order, or a shift or
            stretch that is negative or infinite.
        DataError: for a group with fewer than ``shots + queries`` examples.
    """

    training_only: ClassVar[tuple[str, ...]] = ("shift", "stretch")

    def __init__(
        self,
        grouped: Grouped,
        shots: int = 5,
        queries: int = 15,
        order: Order = "random",
        shift: float = 0.0,
        stretch: float = 0.0,
    ) -> None:
        """Check that the data has enough for such tasks."""
        for name, number in (("shots", shots), ("queries", queries)):
            if number < 1:
                raise UsageError(f"{name} must be at least 1, not {number}.")
        for name, size in (("shift", shift), ("stretch", stretch)):
            if not 0 <= size < math.inf:
                raise UsageError(f"{name} must be a number from 0 on, not {size}.")
        if order not in get_args(Order):
            raise unknown("order of examples", order, get_args(Order))
        if order == "time" and grouped.order is None:
            raise UsageError("these examples have no order: choose a column of the time, or use order='random'.")
        self.grouped, self.shots, self.queries, self.order = grouped, shots, queries, order
        self.shift, self.stretch = shift, stretch
        self.modality: Modality = grouped.modality
        self.target: Target = grouped.target
        self._y = grouped.target.scaled(grouped.y)
        self.outputs = int(grouped.y.shape[1])
        self.names, self.about, self.columns = grouped.names, grouped.about, tuple(grouped.columns)
        groups = grouped.groups.cpu()
        self._counts = torch.bincount(groups, minlength=len(self.names))
        _check_counts(self._counts, self.names, shots, queries)
        # The examples of group g begin at _starts[g], in the order of time if there is one.
        by_time = (
            torch.arange(len(groups)) if grouped.order is None else torch.argsort(grouped.order.cpu(), stable=True)
        )
        self._members = by_time[torch.argsort(groups[by_time], stable=True)]
        self._starts = self._counts.cumsum(0) - self._counts
        self._places = torch.arange(int(self._counts.max()))

    def __repr__(self) -> str:
        """Return a description of one line."""
        return f"PerGroup({len(self.names)} groups, shots={self.shots}, queries={self.queries}, order={self.order!r})"

    def read_as(self, modality: Modality, target: Target) -> PerGroup:
        """Return the same tasks as a learner of other examples reads them: in its units, standardised as they were.

        Args:
            modality: of the inputs that it learned on.
            target: of those.

        Raises:
            UsageError: if these are other inputs, or another number of targets.
        """
        own, other = (one.spec().get("columns") for one in (self.modality, modality))
        if self.modality.kind != modality.kind or own != other:
            raise UsageError(
                f"the learner takes {modality.kind} {', '.join(other or [])}, but these examples ({self.about}) are "
                f"{self.modality.kind} {', '.join(own or [])}: give it the same inputs in the same order"
            )
        same = self.grouped._replace(modality=modality, target=target)
        return PerGroup(same, self.shots, self.queries, self.order, self.shift, self.stretch)

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
        """Draw ``count`` tasks: support ``(B, K, ...)`` and query ``(B, Q, ...)``, targets ``(B, K or Q, d)``."""
        return self.draw(task_seeds(count, generator))

    def draw(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds: the same seed always gives the same task."""
        return self._ready(self.stored(seeds))

    def stored(self, seeds: Sequence[int]) -> Episodes:
        """Return the tasks of the given seeds with the inputs as they are stored, which is what can be shown."""
        return self._gathered(seeds, self.groups_of(seeds))

    def draw_of(self, group: int, seeds: Sequence[int]) -> Episodes:
        """Return tasks of one given group, to evaluate groups one by one.

        Raises:
            UsageError: if there is no such group.
        """
        if not 0 <= group < len(self.names):
            raise UsageError(f"group must be 0 .. {len(self.names) - 1}, not {group}.")
        return self._ready(self._gathered(seeds, [group] * len(seeds)))

    def _ready(self, tasks: Episodes) -> Episodes:
        return Episodes(*(Batch(self.modality.ready(part.x), part.y) for part in (tasks.support, tasks.query)))

    def groups_of(self, seeds: Sequence[int]) -> list[int]:
        """Return the group of each task: tasks of one group are not independent, which an interval must know."""
        return [self.chosen(seed) for seed in seeds]

    def chosen(self, seed: int) -> int:
        """Return the group of the task of ``seed``; ``names`` has its name."""
        return int(torch.randint(len(self.names), (), generator=generator(seed)))

    def _gathered(self, seeds: Sequence[int], groups: Sequence[int]) -> Episodes:
        if not seeds:
            raise UsageError("no tasks were asked for: the count must be at least 1.")
        places = torch.stack([self._rows(seed, group) for seed, group in zip(seeds, groups, strict=True)])
        tasks = Episodes(self._batch(places[:, : self.shots]), self._batch(places[:, self.shots :]))
        return self._changed(tasks, seeds) if self.shift or self.stretch else tasks

    def _changed(self, tasks: Episodes, seeds: Sequence[int]) -> Episodes:
        """Return tasks of other such groups: their levels are moved; changes are faster, slower or reversed."""
        level = tasks.support.y.mean(1, keepdim=True)
        drawn = [torch.randn(2, 1, self.outputs, generator=generator(seed, _CHANGE)) for seed in seeds]
        moved, factor = torch.stack(drawn, 1).to(level)
        return Episodes(
            *(part._replace(y=part.y + self.shift * moved + self.stretch * factor * (part.y - level)) for part in tasks)
        )

    def _rows(self, seed: int, group: int) -> Tensor:
        """Return the examples of one task, the support first: ``(K + Q,)``."""
        # As many keys for every group, from a stream of their own: which examples are drawn depends on the seed alone.
        keys = torch.rand(len(self._places), generator=generator(seed, 1), dtype=torch.float64)
        if self.order == "time":
            keys[: self.shots] = torch.arange(self.shots) - float(self.shots)
        keys = keys[: int(self._counts[group])]
        places = keys.argsort()[: self.shots + self.queries]
        return self._members[self._starts[group] + places]

    def _batch(self, places: Tensor) -> Batch:
        def gather(leaf: Tensor) -> Tensor:
            taken = leaf.index_select(0, places.flatten().to(leaf.device))
            return taken.view(*places.shape, *leaf.shape[1:])

        return Batch(each_input(gather, self.grouped.x), gather(self._y))


def _check_counts(counts: Tensor, names: Sequence[str], shots: int, queries: int) -> None:
    short = torch.nonzero(counts < shots + queries).flatten().tolist()
    if not short:
        return
    others = f" (and {len(short) - 1} more groups have too few)" if len(short) > 1 else ""
    raise DataError(
        f"group {names[short[0]]!r} has {int(counts[short[0]])} rows, but {shots} shots and {queries} queries need "
        f"{shots + queries}{others}: lower the shots or the queries, or leave such groups out."
    )
