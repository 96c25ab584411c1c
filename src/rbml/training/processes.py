"""Several processes that train one run: each computes some chunks of tasks, and all take the same steps.

With W processes, rank r computes chunks r, r + W, r + 2 W, ... of every step. Floating-point sums depend on their
order, so that the chunks' gradients are added in the order of the chunks, whatever W is: the result is that of one
process, to the bit. Each process adds one part of the parameters (all-to-all), and the parts are put together
(all-gather): with one chunk per process, each sends and receives 2 P numbers, as in a ring all-reduce (Patarasuk and
Yuan 2009).

``torchrun`` starts the processes, and ``torch.distributed`` carries the messages: gloo between CPUs, nccl between GPUs.

Shapes: P parameters, B tasks of all processes, C chunks, W processes ("world size").
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from rbml import random
from rbml.autodiff import WHOLE, Shard
from rbml.autodiff.over_tasks import Rows
from rbml.errors import RbmlError, UsageError
from rbml.learner import Learner
from rbml.tree import Tree

PATIENCE = timedelta(hours=6)
"""How long a process waits for another one that is alive, such as the first one while it prepares the data."""


class LostError(RbmlError):
    """Another process of the run has ended, so that this one cannot go on."""


class Processes(Protocol):
    """The processes that train one run together.

    Attributes:
        rank: the number of this one, from 0. The first one writes all files, and speaks to the user.
        world_size: W, how many there are.
    """

    @property
    def rank(self) -> int:
        """Return the number of this process, from 0."""
        ...

    @property
    def world_size(self) -> int:
        """Return how many processes there are."""
        ...

    def shard(self, total: int, chunk: int) -> Shard:
        """Return which of ``total`` tasks this process computes, where ``chunk`` run at once."""
        ...

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process."""
        ...

    def agree(self, learner: Learner) -> None:
        """Raise an ``RbmlError`` unless all processes have the same learner, to the bit."""
        ...


@dataclass(frozen=True)
class Alone:
    """The only process."""

    rank: int = 0
    world_size: int = 1

    def shard(self, total: int, chunk: int) -> Shard:
        """Return all tasks."""
        return WHOLE

    def any(self, flag: bool) -> bool:
        """Return the flag."""
        return flag

    def agree(self, learner: Learner) -> None:
        """Do nothing."""


ALONE = Alone()


@dataclass(frozen=True)
class Several:
    """One of the processes that ``torchrun`` has started.

    Attributes:
        rank: the number of this one, from 0.
        world_size: how many there are.
    """

    rank: int
    world_size: int

    @staticmethod
    def begin() -> Several:
        """Meet the other processes, which ``torchrun`` has started along with this one."""
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        return Several(dist.get_rank(), dist.get_world_size())

    def end(self) -> None:
        """Leave the others."""
        dist.destroy_process_group()

    def shard(self, total: int, chunk: int) -> Shard:
        """Return the chunks of this process."""
        return Dealt(total, chunk, self.rank, self.world_size)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true in any process."""
        found = torch.tensor(int(flag))
        with _together():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def agree(self, learner: Learner) -> None:
        """Compare a digest of all parameters and buffers.

        Raises:
            RbmlError: if they are not the same.
        """
        own = random.digest(learner.state_dict()).reshape(1).cpu()
        found = own.new_empty(self.world_size)
        with _together():
            dist.all_gather_single(found, own)
        other = (found != found[0]).nonzero().flatten().tolist()
        if other:
            raise RbmlError(
                f"processes {', '.join(map(str, other))} no longer have the same parameters as process 0: use the same "
                "processors, the same PyTorch and the same --threads for all, and resume from the last checkpoint"
            )

    def tell(self, content: dict[str, Any]) -> None:
        """Send plain values from the first process to all others, which :meth:`told` returns there."""
        with _together():
            dist.broadcast_object_list([content], src=0)

    def told(self) -> dict[str, Any]:
        """Wait for what the first process tells."""
        content: list[Any] = [None]
        with _together():
            dist.broadcast_object_list(content, src=0)
        found: dict[str, Any] = content[0]
        return found

    def first_to_fail(self) -> bool:
        """Return whether no other process has failed before: that one says why, and the others end without a word."""
        store = dist.distributed_c10d._get_default_store()
        try:
            return bool(store.add(f"rbml_failed_{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1)
        except RuntimeError:  # torchrun itself has ended
            return self.rank == 0


@dataclass(frozen=True)
class Dealt:
    """Chunks ``rank``, ``rank + W``, ... of B tasks.

    A process for which no chunk is left is given the first task: it computes it to know the form of the results, and
    its results are not used.

    Attributes:
        total: B.
        chunk: how many tasks are in a chunk.
        rank: of this process.
        world_size: W.
    """

    total: int
    chunk: int
    rank: int
    world_size: int

    def places(self, rank: int) -> list[int]:
        """Return the tasks of a process."""
        starts = range(rank * self.chunk, self.total, self.chunk * self.world_size)
        return [place for start in starts for place in range(start, min(start + self.chunk, self.total))]

    def chunks(self, rank: int) -> int:
        """Return how many chunks a process has."""
        return len(range(rank, -(-self.total // self.chunk), self.world_size))

    @property
    def idle(self) -> bool:
        """Whether no chunk is left for this process."""
        return self.chunks(self.rank) == 0

    def count(self, own: int) -> int:
        """Return B."""
        return self.total

    def own(self, rows: Rows) -> Rows:
        """Return the rows of this process's tasks."""
        places = self.places(self.rank) or [0]
        return rows[torch.tensor(places)] if isinstance(rows, Tensor) else [rows[place] for place in places]

    def added(self, sums: Iterable[Tree]) -> Tree:
        """Return the sum over the chunks of all processes; memory: P numbers for every chunk of this process.

        Raises:
            UsageError: if computing them has drawn from PyTorch's global random state.
            LostError: if another process has ended.
        """
        before = torch.get_rng_state()
        chunks = list(sums)
        if not torch.equal(before, torch.get_rng_state()):
            raise UsageError(
                "the model, the loss or the engine draws from PyTorch's global random state, which depends on the "
                "number of processes: use rbml.models.Dropout for dropout, or train in one process"
            )
        found: Tree = {}
        for dtype in dict.fromkeys(leaf.dtype for leaf in chunks[0].values()):  # in the same order everywhere
            names = [name for name, leaf in chunks[0].items() if leaf.dtype == dtype]
            flat = self._summed([torch.cat([one[name].flatten() for name in names]) for one in chunks])
            parts = torch.split(flat, [chunks[0][name].numel() for name in names])
            found |= {name: part.view_as(chunks[0][name]) for name, part in zip(names, parts, strict=True)}
        return {name: found[name] for name in chunks[0]}

    def _summed(self, chunks: Sequence[Tensor]) -> Tensor:
        """Return the sum of the chunks of all processes, ``(P,)``; this process adds the ``rank``-th part of it."""
        size, own = len(chunks[0]), self.chunks(self.rank)
        width = -(-size // self.world_size)
        padded = torch.nn.functional.pad(torch.stack(list(chunks)), (0, width * self.world_size - size))
        sent = padded.view(len(chunks), self.world_size, width).transpose(0, 1)[:, :own].flatten()
        counts = [self.chunks(rank) for rank in range(self.world_size)]
        received = sent.new_empty(sum(counts) * width)
        with _together():
            splits = [count * width for count in counts]
            dist.all_to_all_single(received, sent, splits, [own * width] * self.world_size)
        by_rank = [part.view(-1, width) for part in torch.split(received, splits)]
        part: Tensor = by_rank[0][0]
        for chunk in range(1, sum(counts)):
            part = part + by_rank[chunk % self.world_size][chunk // self.world_size]
        whole = part.new_empty(width * self.world_size)
        with _together():
            dist.all_gather_single(whole, part.contiguous())
        total: Tensor = whole[:size]
        return total

    def joined(self, values: Tensor) -> Tensor:
        """Return the values of all tasks, ``(B, ...)``, from those of this process's tasks.

        Raises:
            LostError: if another process has ended.
        """
        places = [self.places(rank) for rank in range(self.world_size)]
        most = max(map(len, places))
        sent = values.new_zeros((most, *values.shape[1:]))
        if not self.idle:
            sent[: len(values)] = values
        received = values.new_empty((self.world_size * most, *values.shape[1:]))
        with _together():
            dist.all_gather_single(received, sent)
        whole = values.new_empty((self.total, *values.shape[1:]))
        for rank, own in enumerate(places):
            whole[own] = received[rank * most : rank * most + len(own)]
        return whole


@contextmanager
def _together() -> Iterator[None]:
    """Say of a failed message that another process has ended: that is what it means.

    Raises:
        LostError: if it fails.
    """
    try:
        yield
    except RuntimeError as error:
        raise LostError(
            "another process of the run has ended, or cannot be reached: the last checkpoint is kept; resume the run, "
            "with any number of processes"
        ) from error
