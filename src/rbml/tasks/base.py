"""What a task is: the data that each inner step learns from, and the queries on which the result is scored.

Shapes: B tasks, n examples of one task, T inner steps, b examples of one step, N examples of a whole training job.

A task is a tree of tensors; a stack of tasks is the same tree with ``B`` in front of every tensor. ``at(t)`` is a pure
function of t: an engine takes steps twice and in reverse order, and ``t`` may be a tensor, so that one compiled step
serves all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from rbml.data.batch import PER_EXAMPLE, Batch, each_input
from rbml.data.inputs.base import Modality
from rbml.data.targets.base import Target

Step = int | Tensor
"""An inner step, counted from 0: an int, or an integer tensor ``()``."""


class Task(Protocol):
    """One task, or a stack of them: a ``NamedTuple`` of tensors and batches."""

    @property
    def query(self) -> Batch:
        """The examples on which the result is scored."""
        ...

    @property
    def support(self) -> Batch:
        """All examples that are learned from, as one batch: heads and statistics are computed from it."""
        ...

    def at(self, t: Step) -> Batch:
        """Return the batch that inner step ``t`` learns from."""
        ...

    def available(self) -> int | None:
        """Return for how many steps there is data; ``None`` means any number."""
        ...


class Episode(NamedTuple):
    """A task of a few examples: every inner step sees the whole support set.

    Attributes:
        support: the examples that are learned from, ``(n, ...)``.
        query: the examples on which the result is scored.
    """

    support: Batch
    query: Batch

    @property
    def tasks(self) -> int:
        """The number of tasks in a stack: B."""
        return count(self)

    def part(self, start: int, stop: int) -> Episode:
        """Return the tasks of a stack from ``start`` up to ``stop``."""
        return part(self, start, stop)

    def to(self, target: torch.device | torch.dtype | str) -> Episode:
        """Move to a device, or convert the floating-point tensors to a dtype."""
        return moved(self, target)

    def at(self, t: Step) -> Batch:
        """Return the support set."""
        return self.support

    def available(self) -> int | None:
        """Return ``None``: every step uses the whole support set."""
        return None


Episodes = Episode
"""A stack of episodes: the same tree, with ``B`` in front of every tensor."""


class Stream(NamedTuple):
    """A task whose examples arrive one after another: step t sees the t-th batch, once.

    Attributes:
        steps: the batches in order, ``(T, b, ...)``; a mask is ``"example"`` and ``"index"`` ``(T, b)``, ``"class"``
            ``(C,)``.
        query: the examples on which the result is scored.
    """

    steps: Batch
    query: Batch

    @property
    def support(self) -> Batch:
        """All examples of the stream, as one batch ``(T * b, ...)``."""
        mask = {name: leaf.flatten(0, 1) if name in PER_EXAMPLE else leaf for name, leaf in self.steps.mask.items()}
        return Batch(each_input(lambda leaf: leaf.flatten(0, 1), self.steps.x), self.steps.y.flatten(0, 1), mask)

    def at(self, t: Step) -> Batch:
        """Return the t-th batch, ``(b, ...)``."""
        mask = {name: at_step(leaf, t) if name in PER_EXAMPLE else leaf for name, leaf in self.steps.mask.items()}
        return Batch(each_input(lambda leaf: at_step(leaf, t), self.steps.x), at_step(self.steps.y, t), mask)

    def available(self) -> int | None:
        """Return T: there is no data for more steps."""
        return len(self.steps.y)


def arrivals(task: Task, classes: int) -> Tensor:
    """Return for every class the first step that sees it, -1 where none does, ``(C,)``.

    Where there is data for any number of steps, every class of the support set is there from the first one.

    Args:
        task: one task, whose targets are classes ``(n,)``.
        classes: C.
    """
    _, y, mask = task.support
    steps = task.available()
    when = torch.arange(len(y), device=y.device) // (len(y) if steps is None else len(y) // steps)
    last = len(y)
    if "example" in mask:
        when = torch.where(mask["example"], when, last)
    first = torch.full_like(when[:1].expand(classes), last).scatter_reduce(0, y, when, "amin")
    return torch.where(first == last, -1, first)


AnyTask = TypeVar("AnyTask")


def at_step(leaf: Tensor, t: Step) -> Tensor:
    """Return row ``t`` of ``(T, ...)``; t may be a tensor under ``vmap`` or in a trace."""
    return leaf[t] if isinstance(t, int) else leaf.index_select(0, t.reshape(1)).squeeze(0)


def count(tasks: Any) -> int:
    """Return the number of tasks in a stack: B."""
    return len(tree_leaves(tasks)[0])


def part(tasks: AnyTask, start: int, stop: int) -> AnyTask:
    """Return the tasks of a stack from ``start`` up to ``stop``."""
    chosen: AnyTask = tree_map(lambda leaf: leaf[start:stop], tasks)
    return chosen


def one(tasks: AnyTask, index: int) -> AnyTask:
    """Return one task of a stack, by itself."""
    chosen: AnyTask = tree_map(lambda leaf: leaf[index], tasks)
    return chosen


def moved(tasks: AnyTask, target: torch.device | torch.dtype | str) -> AnyTask:
    """Move to a device, or convert the floating-point tensors to a dtype."""

    def move(leaf: Tensor) -> Tensor:
        if isinstance(target, torch.dtype) and not leaf.is_floating_point():
            return leaf
        return leaf.to(target)

    there: AnyTask = tree_map(move, tasks)
    return there


class TaskSource(Protocol):
    """Where tasks come from."""

    @property
    def modality(self) -> Modality:
        """How its inputs are read and prepared for the model."""
        ...

    @property
    def target(self) -> Target:
        """How predictions are scored."""
        ...

    @property
    def outputs(self) -> int:
        """How many numbers a model returns per example: one per class or per real value."""
        ...

    @property
    def about(self) -> str:
        """A sentence on what the tasks are drawn from."""
        ...

    def draw(self, seeds: Sequence[int]) -> Any:
        """Return a stack of tasks, one per seed: a task depends on its own seed alone."""
        ...


class TaskDistribution(Protocol):
    """Anything that tasks can be sampled from."""

    def sample(self, count: int, generator: torch.Generator) -> Any:
        """Draw ``count`` tasks; equal generators give equal tasks, and task i does not depend on ``count``."""
        ...


def generator(*key: int) -> torch.Generator:
    """Return a generator for a key such as ``(seed, step)``; different keys give independent numbers.

    >>> bool(torch.rand((), generator=generator(0, 1)) == torch.rand((), generator=generator(0, 1)))
    True
    """
    (state,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def task_seeds(count: int, source: torch.Generator) -> list[int]:
    """Draw one seed per task, so that each task can be drawn again by itself with ``generator(seed)``."""
    return [int(seed) for seed in torch.randint(2**62, (count,), generator=source)]
