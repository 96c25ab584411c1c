"""Run a function on many tasks: side by side under ``vmap``, or one after another if a model does not allow that.

Shapes: B tasks in a stack.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial, reduce
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, func
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from rbml.autodiff.compiled import Compiled, is_replayed
from rbml.autodiff.flat import flattened, form_of
from rbml.autodiff.threads import has_modes, side_by_side
from rbml.errors import RbmlError, UsageError
from rbml.operators.alone import alone, is_alone
from rbml.tree import Tree, add, scale

Vectorise = Literal["auto"] | bool
Rows = TypeVar("Rows", Sequence[Any], Tensor)
Result = TypeVar("Result")


class Shard(Protocol):
    """Which tasks of a stack this process computes, and how the results of all processes are put together."""

    def count(self, own: int) -> int:
        """Return the number of tasks of all processes, given that of this one."""
        ...

    def own(self, rows: Rows) -> Rows:
        """Return the rows of this process's tasks, of a sequence or tensor with one row for every task."""
        ...

    def added(self, sums: Iterable[Tree]) -> Tree:
        """Return the sum of one tree per chunk, over the chunks of all processes, added in the order of the chunks."""
        ...

    def joined(self, values: Tensor) -> Tensor:
        """Return the values of all tasks, in order, from those of this process's tasks: the first dimension."""
        ...


class Whole:
    """The shard of a process that computes all tasks."""

    def count(self, own: int) -> int:
        """Return the same number."""
        return own

    def own(self, rows: Rows) -> Rows:
        """Return all rows."""
        return rows

    def added(self, sums: Iterable[Tree]) -> Tree:
        """Return the sum of the chunks, none of which is kept."""
        total: Tree = {}
        for one in sums:
            total = add(total, one)
        return total

    def joined(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values


WHOLE = Whole()


class OverTasks:
    """Runs a function on every task of a stack.

    The function runs *inside* ``vmap``, one gradient per task: taking the gradient of a vectorised mean instead is
    silently wrong with native batch norm (docs/facts.md).

    Args:
        chunk: how many tasks run at once; it bounds memory and changes results only by rounding. Where a device has too
            little memory for so many, it becomes smaller, with a warning.
        vectorise: ``True`` uses ``vmap``; ``False`` runs each task by itself; ``"auto"`` uses ``vmap`` unless it is
            told otherwise, until a function fails under it but works without it: then it warns once, and runs each by
            itself.
    """

    def __init__(self, chunk: int, vectorise: Vectorise = "auto") -> None:
        """Begin with ``vmap``, unless ``vectorise`` is false."""
        self.chunk, self.vectorise = chunk, vectorise
        self.one_by_one = vectorise is False
        self.one_of_many = False  # whether a task that comes alone stands for one of many, as where costs are measured
        self._traced: set[Any] = set()

    def mean(
        self,
        function: Callable[[Tree, Any], tuple[Tensor, Tree, Tree]],
        m: Tree,
        tasks: Any,
        compiled: Compiled | None = None,
        variant: Any = None,
        shard: Shard = WHOLE,
        separately: bool = False,
    ) -> tuple[Tensor, Tree, Tree]:
        """Run ``function`` on every task, and average its first two results.

        Args:
            function: from m and one task to (loss, gradients, aux).
            m: the meta-parameters, which all tasks share.
            tasks: a tree of tensors with the tasks as their first dimension, ``(B, ...)``.
            compiled: where compiled graphs are kept; ``None`` runs PyTorch's operators one by one.
            variant: everything else that the function depends on, for :class:`Compiled`.
            shard: which tasks of all processes these are.
            separately: whether to differentiate each task by itself, and several of them at the same time on threads of
                their own, also where :meth:`separately` would not. Compiled, there is then one graph of one task;
                without effect on what is traced only.

        Returns:
            The mean loss and the mean gradients over the tasks of all processes, and aux of the given tasks, with the
            tasks as the first dimension.

        Raises:
            UsageError: if ``vectorise=True`` and the function does not run under ``vmap``.
        """

        def run(m: Tree, part: Any) -> tuple[Tensor, Tree, Tree]:
            loss, grads, aux = self._stacked(function, m, part)
            return loss, {name: grad.sum(0) for name, grad in grads.items()}, aux

        if compiled is None:
            with alone() if separately or self.separately(tasks, shard) else nullcontext():
                return _averaged(self._in_turn(partial(run, m), tasks, shard), shard)
        if not is_replayed(compiled) and separately and tree_leaves(tasks)[0].device.type == "cpu":
            with alone():
                works = [compiled.prepared(run, m, part, variant=variant) for part in self.parts(tasks, 1)]
            return _averaged(_in_chunks(side_by_side(works), self.chunk), shard)
        if not is_replayed(compiled):
            return _averaged(self._in_turn(lambda part: compiled(run, m, part, variant=variant), tasks, shard), shard)
        works = [compiled.prepared(run, m, part, variant=variant) for part in self.parts(tasks)]
        return _averaged(side_by_side(works), shard)

    def mean_of_stacks(
        self,
        function: Callable[[Tree, Any], tuple[Tensor, Tree, Tree]],
        m: Tree,
        tasks: Any,
        graphs: Any = None,
        shard: Shard = WHOLE,
        separately: bool = False,
    ) -> tuple[Tensor, Tree, Tree]:
        """Do the same as :meth:`mean` for a function of whole chunks, whose results have one row per task.

        Args:
            function: from m and a chunk to (losses, gradients, aux).
            m: the meta-parameters.
            tasks: the stack, ``(B, ...)``.
            graphs: for a function that runs nothing but graphs once it was called for the shapes of a chunk, so that
                several chunks can then run at the same time: a hashable value of what the graphs depend on besides.
            shard: which tasks of all processes these are.
            separately: whether a chunk is one task by itself, which is differentiated by ``torch.autograd``.
        """

        def run(m: Tree, part: Any) -> tuple[Tensor, Tree, Tree]:
            with alone(in_threads=graphs is not None) if separately else nullcontext():
                loss, grads, aux = function(m, part)
                return loss, {name: grad.sum(0) for name, grad in grads.items()}, aux

        size = 1 if separately else self.chunk
        if graphs is None:
            results: Iterable[tuple[Tensor, Tree, Tree]] = self._in_turn(partial(run, m), tasks, shard, size)
            return _averaged(_in_chunks(results, self.chunk) if separately else results, shard)
        parts = list(self.parts(tasks, size))
        works: list[Callable[[], tuple[Tensor, Tree, Tree]]] = []
        for part in parts:  # what traces its graphs cannot do so in several threads
            shapes = graphs, tuple((leaf.shape, leaf.dtype) for leaf in tree_leaves(part))
            if shapes in self._traced:
                works.append(partial(run, m, part))
            else:
                self._traced.add(shapes)
                works.append(partial(_itself, run(m, part)))
        results = side_by_side(works)
        return _averaged(_in_chunks(results, self.chunk) if separately else results, shard)

    def separately(self, tasks: Any, shard: Shard = WHOLE) -> bool:
        """Return whether tasks run one after another, so that each can be differentiated by itself.

        Args:
            tasks: the tasks of this process.
            shard: which tasks of all processes these are: all must do the same.
        """
        if self.one_of_many or self.vectorise != "auto":
            return self.one_by_one
        return self.one_by_one or shard.count(len(tree_leaves(tasks)[0])) == 1

    def each(self, function: Callable[..., Any], tasks: Any, separately: bool = False) -> Any:
        """Return the results of ``function`` on every task, a tree of tensors with one row per task.

        Args:
            function: from one task to a tree of tensors.
            tasks: the stack, ``(B, ...)``.
            separately: as in :meth:`mean`.
        """
        with alone() if separately else nullcontext():
            work = partial(self._stacked, lambda _, one: function(one), {})
            return joined(list(self._in_turn(work, tasks)))

    def parts(self, tasks: Any, at_once: int | None = None) -> Iterator[Any]:
        """Yield the stack in chunks, or so many tasks at once."""
        size = self.chunk if at_once is None else at_once
        for start in range(0, len(tree_leaves(tasks)[0]), size):
            yield tree_map(lambda leaf, start=start: leaf[start : start + size], tasks)

    def _in_turn(
        self, work: Callable[[Any], Result], tasks: Any, shard: Shard = WHOLE, size: int | None = None
    ) -> Iterator[Result]:
        """Yield the result of every chunk; where a device has too little memory for one, chunks become smaller.

        Not where several processes work together: all need the same chunks.

        Raises:
            OutOfMemoryError: if there is too little for one task, or for a chunk of several processes.
        """
        done, total = 0, len(tree_leaves(tasks)[0])
        while done < total:
            some = min(self.chunk if size is None else size, total - done)
            try:
                result = work(tree_map(lambda leaf, start=done, stop=done + some: leaf[start:stop], tasks))
            except torch.OutOfMemoryError:
                if some == 1 or shard is not WHOLE:
                    raise
            else:
                done += some
                yield result
                continue
            # Here, and not above: while an error is handled, what failed is kept in memory.
            self.chunk = some // 2
            torch.cuda.empty_cache()
            warnings.warn(
                f"the device has too little memory for {some} tasks at once: from now on they run {self.chunk} at once "
                f"(--chunk {self.chunk} does so from the start)",
                stacklevel=2,
            )

    def _stacked(self, function: Callable[..., Any], m: Tree, part: Any) -> Any:
        """Return the results of one chunk, with one row per task."""
        if self.one_by_one or is_alone():
            return _looped(function, m, part)
        try:
            return func.vmap(function, in_dims=(None, 0))(m, part)
        except (RbmlError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # vmap fails with whatever error the operator raises
            reason = str(error).strip().partition(". ")[0].partition("\n")[0] or type(error).__name__
            alone = _looped(function, m, part)  # if this fails too, vmap is not the cause
            if self.vectorise is True:
                raise UsageError(
                    f"the model does not run on several tasks side by side ({reason}), which vectorise=True needs: "
                    "use vectorise='auto' or False, which run one task after another"
                ) from error
            self.one_by_one = True
            warnings.warn(
                f"the model does not run on several tasks side by side ({reason}): from now on tasks run one after "
                f"another, which calls every operator once per task (up to {self.chunk} times as many calls). "
                "Set vectorise=False to do so from the start without this warning",
                stacklevel=2,
            )
            return alone


def _in_chunks(results: Iterable[tuple[Tensor, Tree, Tree]], size: int) -> Iterator[tuple[Tensor, Tree, Tree]]:
    """Yield the losses, summed gradients and aux of each chunk, from those of its tasks: processes add up chunks."""
    rest = iter(results)
    while some := list(islice(rest, size)):
        losses, grads, auxes = zip(*some, strict=True)
        yield torch.cat(losses), reduce(add, grads), joined(list(auxes))


def _averaged(parts: Iterable[tuple[Tensor, Tree, Tree]], shard: Shard) -> tuple[Tensor, Tree, Tree]:
    """Return the mean loss, the mean gradients and aux from the losses, summed gradients and aux of each chunk."""
    losses, auxes = [], []

    def sums() -> Iterator[Tree]:
        for loss, grads, aux in parts:
            losses.append(loss)
            auxes.append(aux)
            yield grads

    total = shard.added(sums())
    loss = shard.joined(torch.cat(losses))
    return loss.mean(), scale(total, 1 / len(loss)), joined(auxes)


def _itself(result: tuple[Tensor, Tree, Tree]) -> tuple[Tensor, Tree, Tree]:
    return result


def _looped(function: Callable[..., Any], m: Tree, part: Any) -> Any:
    """Run tasks one after another, or where processors are free at the same time, each on a thread of its own."""
    leaves, form = flattened(part), form_of(tree_structure(part))
    first = leaves[0]
    works = [partial(function, m, form(iter(one))) for one in zip(*(leaf.unbind() for leaf in leaves), strict=True)]
    threads = torch.get_num_threads() if is_alone() and first.device.type == "cpu" else 1
    if threads > 1 and len(works) > 1 and not has_modes():
        results = side_by_side([partial(_alone, work) for work in works])
    else:
        results = [work() for work in works]
    stacks = [torch.stack(some) for some in zip(*map(flattened, results), strict=True)]
    return form_of(tree_structure(results[0]))(iter(stacks))


def _alone(work: Callable[[], Result]) -> Result:
    """Run a piece of work in another thread, which does not know that its derivatives are those of one task."""
    with alone(in_threads=True):
        return work()


def joined(parts: list[Any]) -> Any:
    """Return chunks of results as one stack."""
    return parts[0] if len(parts) == 1 else tree_map(lambda *leaves: torch.cat(leaves), *parts)
