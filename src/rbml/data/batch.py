"""Examples with their targets: the support set that an inner step learns from, and the queries.

Shapes: B tasks, n examples of one task, C classes, ``...`` the shape of one example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbml.tree import Tree

Inputs = Tensor | Tree
"""What a model takes: a tensor ``(n, ...)``, or a tree of them, given as keyword arguments: ``model(**x)``."""


PER_EXAMPLE = ("example", "index")
"""The entries of a mask that have one value per example."""


class Batch(NamedTuple):
    """Examples and their targets; in a stack of tasks every tensor has ``B`` in front.

    Attributes:
        x: ``(n, ...)``, or a tree of such tensors (ids and masks of texts, for example).
        y: targets ``(n, ...)``.
        mask: which examples and classes count, for tasks of unequal size in one stack: ``"example"`` ``(n,)`` and
            ``"class"`` ``(C,)``, both boolean. Padding comes last. Empty if everything counts. Where a step sees a part
            of all examples, ``"index"`` ``(n,)`` says which ones they are: int64, counted from 0.
    """

    x: Any  # Inputs; a union would make everyone who has plain tensors test for a tree first
    y: Tensor
    mask: Tree = {}  # noqa: RUF012  never written to

    @property
    def size(self) -> int:
        """The number of examples, padding included: n; for a stack of tasks, B."""
        return len(self.y)


def each_input(function: Callable[[Tensor], Tensor], x: Inputs) -> Inputs:
    """Apply a function to the tensor, or to every tensor of the tree."""
    return function(x) if isinstance(x, Tensor) else {name: function(leaf) for name, leaf in x.items()}


def rows(batch: Batch, places: Tensor) -> Batch:
    """Return the examples at the given places ``(k,)``: a pure gather, also under ``vmap`` and in a trace."""
    mask = {name: leaf.index_select(0, places) if name in PER_EXAMPLE else leaf for name, leaf in batch.mask.items()}
    return Batch(each_input(lambda leaf: leaf.index_select(0, places), batch.x), batch.y.index_select(0, places), mask)


def masked_mean(each: Tensor, mask: Tree) -> Tensor:
    """Return the mean of ``(n, ...)`` over the examples that count by a batch's mask, a scalar."""
    counts = mask.get("example")
    if counts is None:
        return each.mean()
    weights = counts.to(each.dtype).reshape(-1, *[1] * (each.dim() - 1)).expand_as(each)
    # Padding may hold anything, NaN included: a product with zero would keep it.
    return torch.where(weights > 0, each, 0).sum() / weights.sum()


def hide_classes(prediction: Tensor, batch: Batch) -> Tensor:
    """Return logits ``(n, C)`` that rule out the classes that the task does not have.

    Their logits become so low that softmax gives exactly zero; infinity would turn second derivatives into NaN.
    """
    present = batch.mask.get("class")
    if present is None:
        return prediction
    return torch.where(present, prediction, torch.finfo(prediction.dtype).min / 4)
