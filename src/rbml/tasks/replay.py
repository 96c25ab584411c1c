"""Streams with a memory: every step sees its own examples, and some earlier ones again.

Shapes: T steps, b new examples per step, n = T b examples of the stream, M places in the memory, r repeated examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from rbml import random
from rbml.data.batch import Batch, rows
from rbml.errors import UsageError
from rbml.tasks.base import Step, Stream
from rbml.tree import Tree


class Replay(NamedTuple):
    r"""A stream whose steps also see examples from a memory of earlier ones.

    The memory is a reservoir (Vitter 1985, Algorithm R): at any step it holds M of the examples before it, all equally
    likely. Example i takes place :math:`\lfloor u_i (i + 1) \rfloor`, if that is below M, from whatever was there; the
    first M examples take one place each. What a step repeats is drawn from the memory with replacement. Both are pure
    functions of the key and the step, so that nothing is stored: a step costs a comparison of n r numbers.

    At the first step nothing can be repeated, and its mask leaves those examples out.

    Attributes:
        steps: the batches in order, ``(T, b, ...)``.
        query: the examples on which the result is scored.
        key: an integer scalar ``()``: another key keeps and repeats other examples.
        memory: ``(M,)``, ``0 .. M-1``: its length is the size of the memory.
        again: ``(r,)``, ``0 .. r-1``: its length is how many examples each step repeats.
    """

    steps: Batch
    query: Batch
    key: Tensor
    memory: Tensor
    again: Tensor

    @staticmethod
    def of(streams: Stream, memory: int, again: int, keys: Sequence[int]) -> Replay:
        """Return a stack of streams ``(B, ...)`` with a memory.

        Args:
            streams: the stack.
            memory: M, how many examples are kept.
            again: r, how many of them a step sees besides its own.
            keys: one integer per stream.

        Raises:
            UsageError: if M or r is below one, or there is not one key per stream.
        """
        count = len(streams.query.y)
        if memory < 1 or again < 1:
            raise UsageError(f"memory and again must be at least 1, not {memory} and {again}: a Stream has no memory")
        if len(keys) != count:
            raise UsageError(f"{count} streams need one key each, not {len(keys)}")
        device = streams.query.y.device
        places = [torch.arange(size, device=device).expand(count, -1) for size in (memory, again)]
        return Replay(streams.steps, streams.query, torch.tensor(list(keys), device=device), *places)

    @property
    def stream(self) -> Stream:
        """The stream without its memory."""
        return Stream(self.steps, self.query)

    @property
    def support(self) -> Batch:
        """All examples of the stream, as one batch ``(n, ...)``."""
        return self.stream.support

    def repeated(self, t: Step) -> Tensor:
        """Return which earlier examples step ``t`` sees again, ``(r,)``; they do not count at the first step."""
        new, size = self.steps.y.shape[1], len(self.memory)
        number = torch.arange(self.steps.y.shape[0] * new, device=self.key.device)
        draws = random.uniform(self.key, "memory", number.double())
        place = torch.where(number < size, number, (draws * (number + 1)).long())
        before = torch.as_tensor(t, device=self.key.device) * new
        chosen = random.uniform(random.fold(self.key, t), "again", self.again.double())
        chosen = (chosen * before.clamp(min=1, max=size)).long()
        holds = (place[:, None] == chosen) & (number < before)[:, None]
        return torch.where(holds, number[:, None], -1).amax(0).clamp(min=0)  # the last one that took the place is there

    def at(self, t: Step) -> Batch:
        """Return the t-th batch and what is repeated, ``(b + r, ...)``, with the index of each in the stream."""
        new, old = self.stream.at(t), self.repeated(t)
        index = torch.arange(len(new.y), device=old.device) + torch.as_tensor(t, device=old.device) * len(new.y)
        counts = torch.as_tensor(t, device=old.device) > 0
        both = [self._marked(new, index, True), self._marked(rows(self.support, old), old, counts)]
        x, y = tree_map(lambda one, other: torch.cat([one, other]), *[part[:2] for part in both])
        mask: Tree = {name: torch.cat([part.mask[name] for part in both]) for name in ("example", "index")}
        return Batch(x, y, new.mask | mask)

    def available(self) -> int | None:
        """Return T: there is no data for more steps."""
        return len(self.steps.y)

    def _marked(self, batch: Batch, index: Tensor, counts: bool | Tensor) -> Batch:
        all_count = torch.ones_like(index, dtype=torch.bool)
        example = batch.mask.get("example", all_count) & counts
        return batch._replace(mask={**batch.mask, "example": example, "index": index})
