"""A whole training run as a task: mini-batches of many examples, in an order that is drawn by a key.

Shapes: B tasks, N examples, b examples of a mini-batch, E epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rbml import random
from rbml.data.batch import Batch, rows
from rbml.operators.alone import is_alone
from rbml.tasks.base import Step, at_step


class Job(NamedTuple):
    """A whole training run: step t sees a mini-batch of the examples, in an order that depends on a key.

    Every epoch is a new permutation; the last, incomplete mini-batch of an epoch is dropped. Under a transform each
    step sorts N numbers again rather than storing the permutation.

    Attributes:
        examples: all examples to train on, ``(N, ...)``; tasks of one stack may share their memory (``expand``).
        query: the examples on which the result is scored.
        key: an integer scalar ``()``: another key gives another order.
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
            size: examples per mini-batch, at most N.
            keys: one integer per job.
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
        if isinstance(epoch, int) and is_alone():  # outside all transforms the key is a number
            order = _kept_order(int(self.key) + epoch, total, self.key.device)
        else:
            order = _order(self.key + epoch, total)
        return order.index_select(0, batch * size + self.places)

    def at(self, t: Step) -> Batch:
        """Return the mini-batch of step ``t``, ``(b, ...)``, with the index of each example among all of them."""
        return _seen(self.examples, self.rows(t))

    def available(self) -> int | None:
        """Return ``None``: there is always another epoch."""
        return None


def _seen(examples: Batch, places: Tensor) -> Batch:
    """Return the examples of these places, with the places as their index."""
    batch = rows(examples, places)
    return batch._replace(mask={**batch.mask, "index": places})


def _order(key: Tensor, total: int) -> Tensor:
    """Return a permutation of ``total`` examples."""
    return torch.argsort(random.uniform(key, "order", torch.zeros(total, dtype=torch.float64, device=key.device)))


@lru_cache(maxsize=32)
def _kept_order(key: int, total: int, device: torch.device) -> Tensor:
    """Return the permutation of an epoch, which serves all of its steps where one run after another is computed."""
    return _order(torch.tensor(key, device=device), total)


class OrderedJob(NamedTuple):
    """A job with the order of some epochs, so that the steps of these need not draw it.

    Attributes:
        examples: as of :class:`Job`, ``(N, ...)``.
        query: as of :class:`Job`.
        first: the first step of these epochs, ``()``.
        order: which examples their steps see, ``(steps, b)``.
    """

    examples: Batch
    query: Batch
    first: Tensor
    order: Tensor

    @property
    def support(self) -> Batch:
        """All examples."""
        return self.examples

    def at(self, t: Step) -> Batch:
        """Return the mini-batch of step ``t``, as :meth:`Job.at`."""
        return _seen(self.examples, at_step(self.order, t - self.first))

    def available(self) -> int | None:
        """Return ``None``: there is always another epoch."""
        return None


def jobs_in(tree: Any) -> list[Job]:
    """Return the stacks of jobs in a tree of tensors."""
    found: list[Job] = []
    tree_map(lambda part: found.append(part) if isinstance(part, Job) else None, tree, is_leaf=_is_job)
    return found


def with_orders(tree: Any, epoch: int, epochs: int) -> Any:
    """Return a tree in which every stack of jobs is one of :class:`OrderedJob`.

    Args:
        tree: a tree of tensors with stacks of jobs in it.
        epoch: the first epoch whose order is drawn.
        epochs: E, how many.
    """

    def ordered(part: Any) -> Any:
        if not isinstance(part, Job):
            return part
        (_, total), (_, size) = part.examples.y.shape[:2], part.places.shape
        batches = total // size

        def order(key: int, number: int) -> Tensor:
            return _kept_order(key + number, total, part.key.device)[: batches * size].view(batches, size)

        orders = [torch.cat([order(key, epoch + e) for e in range(epochs)]) for key in part.key.tolist()]
        first = torch.tensor(epoch * batches, device=part.key.device).expand(len(orders))
        return OrderedJob(part.examples, part.query, first, torch.stack(orders))

    return tree_map(ordered, tree, is_leaf=_is_job)


def _is_job(part: Any) -> bool:
    return isinstance(part, Job)
