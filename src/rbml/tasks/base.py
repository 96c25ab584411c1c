"""What a task is: a support batch to learn from and a query batch to be judged by.

Shapes: B tasks, n examples of one task, ``...`` the shape of one example. For classification ``n = ways * shots`` in
the support batch and ``ways * queries`` in the query batch.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """Examples ``x`` of shape ``(n, ...)`` and their targets ``y``; in :class:`Episodes` both with ``B`` in front."""

    x: Tensor
    y: Tensor


class Episodes(NamedTuple):
    """A stack of tasks: every tensor of ``support`` and of ``query`` is ``(B, n, ...)``."""

    support: Batch
    query: Batch

    @property
    def tasks(self) -> int:
        """How many tasks there are: B."""
        return self.support.x.shape[0]

    def part(self, start: int, stop: int) -> Episodes:
        """Return the tasks from ``start`` up to ``stop``."""
        return Episodes(*(Batch(batch.x[start:stop], batch.y[start:stop]) for batch in self))

    def to(self, target: torch.device | torch.dtype | str) -> Episodes:
        """Move to a device, or put the floating-point tensors into a dtype."""

        def move(leaf: Tensor) -> Tensor:
            if isinstance(target, torch.dtype) and not leaf.is_floating_point():
                return leaf
            return leaf.to(target)

        return Episodes(*(Batch(move(batch.x), move(batch.y)) for batch in self))


class TaskDistribution(Protocol):
    """Where tasks come from."""

    def sample(self, count: int, generator: torch.Generator) -> Episodes:
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
    """Draw one seed a task, so that each task can be drawn again alone: ``generator(seed)``."""
    return [int(seed) for seed in torch.randint(2**62, (count,), generator=source)]
