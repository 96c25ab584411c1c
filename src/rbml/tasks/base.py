"""What a task is: which data each inner step sees, and what the result is judged on.

Shapes: B tasks, n examples of one task, T inner steps, b examples of one step, N examples of a whole training job.

A task is a tree of tensors, and a stack of tasks the same tree with ``B`` in front of every tensor. ``at(t)`` is pure
in t: an engine visits steps backwards and twice, and ``t`` may be a tensor, so that one compiled step serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from rbml import random
from rbml.data.batch import Batch, each_input, rows
from rbml.data.inputs.base import Modality
from rbml.data.targets.base import Target

Step = int | Tensor
"""An inner step, from 0: a number, or a whole number in a tensor ``()``."""


class Task(Protocol):
    """One task, or a stack of them: a ``NamedTuple`` of tensors and batches."""

    @property
    def query(self) -> Batch:
        """What the result is judged on."""
        ...

    @property
    def support(self) -> Batch:
        """All examples that are learned from, as one batch: what heads and statistics are made of."""
        ...

    def at(self, t: Step) -> Batch:
        """Return what inner step ``t`` learns from."""
        ...

    def available(self) -> int | None:
        """Return for how many steps there is data; ``None`` is any number."""
        ...


class Episode(NamedTuple):
    """A task of a few examples: every inner step sees the whole support set.

    Attributes:
        support: what is learned from, ``(n, ...)``.
        query: what the result is judged on.
    """

    support: Batch
    query: Batch

    @property
    def tasks(self) -> int:
        """How many tasks there are in a stack: B."""
        return count(self)

    def part(self, start: int, stop: int) -> Episode:
        """Return the tasks of a stack from ``start`` up to ``stop``."""
        return part(self, start, stop)

    def to(self, target: torch.device | torch.dtype | str) -> Episode:
        """Move to a device, or put the floating-point tensors into a dtype."""
        return moved(self, target)

    def at(self, t: Step) -> Batch:
        """Return the support set."""
        return self.support

    def available(self) -> int | None:
        """Return ``None``: the support set is there at every step."""
        return None


Episodes = Episode
"""A stack of episodes: the same tree, with ``B`` in front of every tensor."""


class Stream(NamedTuple):
    """A task whose examples arrive one after another: step t sees the t-th batch, once.

    Attributes:
        steps: what arrives, ``(T, b, ...)``; a mask is ``"example"`` ``(T, b)``, ``"class"`` ``(C,)``.
        query: what the result is judged on.
    """

    steps: Batch
    query: Batch

    @property
    def support(self) -> Batch:
        """Everything that arrives, as one batch ``(T * b, ...)``."""
        mask = {name: leaf.flatten(0, 1) if name == "example" else leaf for name, leaf in self.steps.mask.items()}
        return Batch(each_input(lambda leaf: leaf.flatten(0, 1), self.steps.x), self.steps.y.flatten(0, 1), mask)

    def at(self, t: Step) -> Batch:
        """Return the t-th batch, ``(b, ...)``."""
        mask = {name: at_step(leaf, t) if name == "example" else leaf for name, leaf in self.steps.mask.items()}
        return Batch(each_input(lambda leaf: at_step(leaf, t), self.steps.x), at_step(self.steps.y, t), mask)

    def available(self) -> int | None:
        """Return T: a learner with more steps would see data that is not there."""
        return len(self.steps.y)


class Job(NamedTuple):
    """A whole training run: step t sees a mini-batch of the examples, in an order that a key decides.

    Every epoch is a new permutation; what is left over at its end, fewer than a batch, is left out. A step sorts N
    numbers, and keeps none of them.

    Attributes:
        examples: all examples to train on, ``(N, ...)``; tasks of one stack may share their memory (``expand``).
        query: what the result is judged on.
        key: a whole number, ``()``: another key, another order.
        places: ``(b,)``, ``0 .. b-1``: its length is the size of a mini-batch.
    """

    examples: Batch
    query: Batch
    key: Tensor
    places: Tensor

    @staticmethod
    def of(examples: Batch, query: Batch, size: int, keys: Sequence[int]) -> Job:
        """Return a stack of jobs on the same examples, one per key; nothing is copied.

        Args:
            examples: ``(N, ...)``.
            query: ``(n, ...)``.
            size: examples of a mini-batch, at most N.
            keys: one whole number per job.
        """

        def stack(leaf: Tensor) -> Tensor:
            return leaf.expand(len(keys), *leaf.shape)

        device = examples.y.device
        key, places = torch.tensor(list(keys), device=device), torch.arange(size, device=device)
        return Job(tree_map(stack, examples), tree_map(stack, query), key, stack(places))

    @property
    def support(self) -> Batch:
        """All examples."""
        return self.examples

    def rows(self, t: Step) -> Tensor:
        """Return which examples step ``t`` sees, ``(b,)``."""
        total, size = len(self.examples.y), len(self.places)
        epoch, batch = t // (total // size), t % (total // size)
        order = torch.argsort(random.uniform(self.key + epoch, "order", self.examples.y.new_zeros(total).double()))
        return order.index_select(0, batch * size + self.places)

    def at(self, t: Step) -> Batch:
        """Return the mini-batch of step ``t``, ``(b, ...)``."""
        return rows(self.examples, self.rows(t))

    def available(self) -> int | None:
        """Return ``None``: there is always another epoch."""
        return None


AnyTask = TypeVar("AnyTask")


def at_step(leaf: Tensor, t: Step) -> Tensor:
    """Return row ``t`` of ``(T, ...)``, also where t is a tensor under ``vmap`` or in a trace."""
    return leaf[t] if isinstance(t, int) else leaf.index_select(0, t.reshape(1)).squeeze(0)


def count(tasks: Any) -> int:
    """Return how many tasks there are in a stack: B."""
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
    """Move to a device, or put the floating-point tensors into a dtype."""

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
        """How its examples were read, and are made ready."""
        ...

    @property
    def target(self) -> Target:
        """How predictions are judged."""
        ...

    @property
    def outputs(self) -> int:
        """How many numbers a model returns per example: ways of classes, or real values."""
        ...

    @property
    def about(self) -> str:
        """What the tasks are made from, in words."""
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
    """Return a generator for a key such as ``(seed, step)``: equal keys, equal numbers; different keys, independent.

    >>> bool(torch.rand((), generator=generator(0, 1)) == torch.rand((), generator=generator(0, 1)))
    True
    """
    (state,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def task_seeds(count: int, source: torch.Generator) -> list[int]:
    """Draw one seed per task, so that each task can be drawn again alone: ``generator(seed)``."""
    return [int(seed) for seed in torch.randint(2**62, (count,), generator=source)]
