"""Tasks of unequal ways, shots and queries in one stack: padded to one size, with masks of what counts.

Shapes: B tasks, n examples of one task, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from rbml.data.batch import Batch, Inputs
from rbml.errors import UsageError
from rbml.tasks.base import Episode
from rbml.tree import Tree


class Sizes(NamedTuple):
    """The size of a task.

    Attributes:
        support: the number of support examples.
        query: the number of query examples.
        classes: the number of classes; 0 if the targets are not one class per example.
    """

    support: int
    query: int
    classes: int

    @staticmethod
    def of(task: Episode) -> Sizes:
        """Return the sizes of one task, including padding that it already has."""
        return Sizes(len(task.support.y), len(task.query.y), _classes(task))

    @staticmethod
    def largest(sizes: Sequence[Sizes]) -> Sizes:
        """Return the largest of each."""
        return Sizes(*(max(column) for column in zip(*sizes, strict=True)))


def stack(tasks: Sequence[Episode], sizes: Sizes | None = None) -> Episode:
    """Return tasks as one stack, each padded at its end.

    Padding is zero, in the targets too, so that a loss can be computed on it before the mask drops it. Tasks of equal
    size get no mask, because computing without one is faster.

    Args:
        tasks: episodes of one task each, ``(n, ...)``.
        sizes: the sizes to pad to; masks are then always made, so that all stacks have the same form. ``None`` pads to
            the largest of these tasks.

    Raises:
        UsageError: if there is no task, for streams, if examples or targets have different shapes, or if a task is
            larger than ``sizes``.

    >>> from rbml.data.batch import Batch
    >>> x, y = torch.ones(3, 2), torch.tensor([0, 1, 2])
    >>> one, two = Episode(Batch(x, y), Batch(x, y)), Episode(Batch(x[:2], y[:2]), Batch(x[:1], y[:1]))
    >>> stack([one, two]).support.mask["example"].tolist()
    [[True, True, True], [True, True, False]]
    """
    if not tasks:
        raise UsageError("there is no task to stack.")
    if any(task.available() is not None for task in tasks):
        raise UsageError("streams cannot be padded to one size, because their order counts: use one source of streams.")
    found = [Sizes.of(task) for task in tasks]
    largest = Sizes.largest(found)
    masked = sizes is not None or len(set(found)) > 1 or any(task.support.mask or task.query.mask for task in tasks)
    whole = largest if sizes is None else sizes
    if any(need > room for need, room in zip(largest, whole, strict=True)):
        raise UsageError(f"tasks of {largest} do not fit into {whole}.")
    for name in ("support", "query"):
        _check_alike([getattr(task, name) for task in tasks])
    support, query = (
        [
            _padded(getattr(task, name), room, own.classes, whole.classes, masked)
            for task, own in zip(tasks, found, strict=True)
        ]
        for name, room in (("support", whole.support), ("query", whole.query))
    )
    return Episode(_stacked(support), _stacked(query))


def _classes(task: Episode) -> int:
    y = task.support.y
    if y.is_floating_point() or y.dim() != 1:
        return 0
    present = task.support.mask.get("class")
    if present is not None:
        return len(present)
    return max((int(part.y.max()) + 1 for part in task if len(part.y)), default=0)


def _padded(batch: Batch, room: int, own: int, classes: int, masked: bool) -> Batch:
    """Return a batch of ``room`` examples; the first ``len(batch.y)`` and the first ``own`` classes count."""
    n = len(batch.y)
    x: Inputs = (
        {name: _longer(leaf, room) for name, leaf in batch.x.items()}
        if isinstance(batch.x, dict)
        else _longer(batch.x, room)
    )
    mask: Tree = {}
    if masked:
        example = batch.mask.get("example", torch.ones(n, dtype=torch.bool, device=batch.y.device))
        mask = {"example": _longer(example, room)}
    if masked and classes:
        present = batch.mask.get("class", torch.ones(own, dtype=torch.bool, device=batch.y.device))
        mask["class"] = _longer(present, classes)
    return Batch(x, _longer(batch.y, room), mask)


def _longer(leaf: Tensor, room: int) -> Tensor:
    """Return a tensor with ``room`` rows: zeros (or False) after its own."""
    return pad(leaf, [0, 0] * (leaf.dim() - 1) + [0, room - len(leaf)])


def _stacked(batches: Sequence[Batch]) -> Batch:
    first = batches[0]
    x: Inputs = (
        {name: torch.stack([batch.x[name] for batch in batches]) for name in first.x}
        if isinstance(first.x, dict)
        else torch.stack([batch.x for batch in batches])
    )
    mask = {name: torch.stack([batch.mask[name] for batch in batches]) for name in first.mask}
    return Batch(x, torch.stack([batch.y for batch in batches]), mask)


def _check_alike(batches: Sequence[Batch]) -> None:
    """Refuse examples or targets whose shapes or types differ in more than the number of rows."""
    forms = [_form(batch) for batch in batches]
    if other := next((form for form in forms if form != forms[0]), None):
        raise UsageError(
            f"tasks in one stack need examples and targets of the same shape and type, not {_shown(forms[0])} and "
            f"{_shown(other)}: bring the sources to one size, or train on one of them"
        )


def _form(batch: Batch) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    leaves = batch.x if isinstance(batch.x, dict) else {"x": batch.x}
    return {name: (tuple(leaf.shape[1:]), leaf.dtype) for name, leaf in (leaves | {"y": batch.y}).items()}


def _shown(form: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{name} {shape} {str(dtype).removeprefix('torch.')}" for name, (shape, dtype) in form.items())
