"""Checks of what a learner is given: wrong use raises a clear error here, not an obscure one inside a transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.autodiff.remedies import named
from rbml.data.batch import Batch, Inputs, each_input
from rbml.data.targets import Loss
from rbml.errors import RbmlError, UsageError
from rbml.tasks import Episode, Task
from rbml.tasks.base import one
from rbml.tree import Tree

Predict = Callable[[Any], Tensor]

IGNORED = -100
"""PyTorch's default ``ignore_index``: the label of examples that its losses leave out."""


def check_loss(loss: Loss, model: Any) -> None:
    """Refuse a loss that has parameters of its own, or one of logits for a model that gives probabilities.

    Args:
        loss: the loss.
        model: the model; if its attribute ``probabilities`` is not empty, it names the layer whose softmax is the
            output.

    Raises:
        UsageError: saying what to do.
    """
    if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
        raise UsageError("the loss has parameters: trained by this loss itself, they would only make it small")
    layer = getattr(model, "probabilities", "")
    if layer and (loss is F.cross_entropy or isinstance(loss, nn.CrossEntropyLoss)):
        raise UsageError(
            f"the model gives probabilities (the softmax of {layer}), and cross entropy expects logits, of which it "
            "takes the softmax itself: use from_keras(model, logits=True), or give the learner loss= of probabilities"
        )


def check_tasks(
    tasks: Task, ways: int | None, steps: int, dtype: torch.dtype, predict: Predict, values: bool = True
) -> None:
    """Refuse a stack of tasks that does not fit the model or the number of steps, or whose parts do not match.

    Args:
        tasks: the stack.
        ways: the number of classes; ``None`` means one per output of the model.
        steps: T.
        dtype: the type of the model's numbers.
        predict: the model, as a function of one task's examples.
        values: whether to look at labels too, for which the host waits for their device.

    Raises:
        UsageError: naming what does not fit.
    """
    stacked = [tasks.support, tasks.query] if isinstance(tasks, Episode) else [tasks.query]
    for batch in stacked:
        check_shapes(batch, 2)
    if len({len(batch.y) for batch in stacked}) > 1:
        raise UsageError(f"support has {len(stacked[0].y)} tasks, query {len(stacked[1].y)}")
    first = one(tasks, 0)
    available = first.available()
    if available is not None and available != steps:
        raise UsageError(
            f"the tasks have data for {available} inner steps, and the learner takes {steps}: give it steps={available}"
        )
    check_shapes(first.support, 1)
    alone = [first.support, first.query]
    for batch, single in zip(stacked if len(stacked) == 2 else alone, alone, strict=True):
        check_dtype(batch, dtype)
        if values:
            check_values(batch, single, ways, predict)


def check_batch(batch: Batch, ways: int | None, dtype: torch.dtype, predict: Predict) -> None:
    """Refuse a batch of one task that would fail deep inside, or give a meaningless result.

    Raises:
        UsageError: naming what does not fit.
    """
    check_shapes(batch, 1)
    check_dtype(batch, dtype)
    check_values(batch, batch, ways, predict)


def check_shapes(batch: Batch, lead: int) -> None:
    """Refuse a batch that does not hold tensors, or whose leading dimensions differ.

    Raises:
        UsageError: naming what was given.
    """
    what = "(n, ...)" if lead == 1 else "(B, n, ...)"
    if not isinstance(batch, Batch):
        raise UsageError(f"expected a Batch(x, y) of tensors, not {type(batch).__name__}")
    leaves = batch.x if isinstance(batch.x, dict) else {"x": batch.x}
    for name, leaf in {**leaves, "y": batch.y}.items():
        if not isinstance(leaf, Tensor):
            raise UsageError(
                f"{name} is {_kind(leaf)}: examples are a tensor, or a dict of tensors by the names of the model's "
                "arguments; use torch.as_tensor(...) for arrays and lists"
            )
    for name, leaf in leaves.items():
        if leaf.dim() < lead or leaf.shape[:lead] != batch.y.shape[:lead]:
            raise UsageError(
                f"{name} and y must both begin with {what}, not {tuple(leaf.shape)} and {tuple(batch.y.shape)}"
            )
        if 0 in leaf.shape[:lead]:
            raise UsageError(f"the batch is empty: it has shape {tuple(leaf.shape)}")


def check_dtype(batch: Batch, dtype: torch.dtype) -> None:
    """Refuse inputs whose dtype is not the model's.

    Raises:
        UsageError: naming both.
    """
    for leaf in batch.x.values() if isinstance(batch.x, dict) else [batch.x]:
        if leaf.is_floating_point() and leaf.dtype != dtype:
            raise UsageError(
                f"the examples are {leaf.dtype}, the model is {dtype}: use episodes.to({dtype}) or model.to(...)"
            )


def check_values(batch: Batch, alone: Batch, ways: int | None, predict: Predict) -> None:
    """Refuse labels for which the model has no output.

    Args:
        batch: the examples of all tasks.
        alone: those of one task, on which the model is tried.
        ways: C.
        predict: the model.

    Raises:
        UsageError: naming what does not fit.
    """
    y = batch.y
    if y.is_floating_point() or y.is_complex():
        return
    if alone.y.dim() > 1 or ways in (None, 1):
        prediction = attempt(predict, _few(alone.x))
        if not _are_classes(prediction, alone.y):
            return  # counts, binary targets, tokens: only their own loss knows what fits
        ways = prediction.shape[1] if ways is None else ways
    assert ways is not None
    if y.dtype != torch.int64:
        raise UsageError(f"the labels are {y.dtype}: classes are torch.int64, use y.long(); other targets are floats")
    counts = batch.mask.get("example")
    labels = y if counts is None else y[counts]
    labels = labels[labels != IGNORED]
    if not labels.numel():
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= ways:
        raise UsageError(f"labels must be 0 .. {ways - 1} for a head of {ways} classes, but go from {low} to {high}")


def _are_classes(prediction: Tensor, y: Tensor) -> bool:
    """Return whether integer targets are one class per example: predictions are then ``(n, C)``."""
    return y.dim() == 1 and prediction.dim() == 2 and prediction.shape[1] > 1


def _few(x: Inputs) -> Inputs:
    return each_input(lambda leaf: leaf[:2], x)


def _kind(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__name__}".replace("builtins.", "")


@contextmanager
def explained(predict: Predict, loss: Loss, batches: tuple[Batch, ...]) -> Iterator[None]:
    """When the code inside fails, try the model and the loss by themselves and report which of them is at fault.

    Nothing is swallowed: an error that neither of them explains is raised unchanged.

    Args:
        predict: the model.
        loss: the loss.
        batches: the batches of one task on which they are tried.

    Raises:
        UsageError: if the model or the loss fails by itself.
        RbmlError: whatever error of rbml the code inside raised, unchanged.
        OutOfMemoryError: of a device, unchanged.
    """
    try:
        yield
    except (RbmlError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        for batch in batches:
            prediction = attempt(predict, batch.x)
            shapes = f"a prediction {tuple(prediction.shape)} and targets {tuple(batch.y.shape)} of {batch.y.dtype}"
            try:
                value = loss(prediction, batch.y)
            except Exception as cause:
                raise UsageError(f"the loss fails on {shapes}: {cause}") from cause
            if value.dim() > 0:
                raise UsageError(f"the loss must be a scalar, not {tuple(value.shape)} for {shapes}") from None
        if (remedy := named(error)) is not None:
            raise remedy from error
        raise


def attempt(predict: Predict, x: Inputs) -> Tensor:
    """Return the prediction for the examples of one task.

    Raises:
        UsageError: if the model fails, or does not return a tensor with one row per example.
    """
    leaves: Tree = x if isinstance(x, dict) else {"x": x}
    shapes = ", ".join(f"{tuple(leaf.shape)} of {leaf.dtype}" for leaf in leaves.values())
    count = len(next(iter(leaves.values())))
    try:
        with torch.no_grad():
            prediction = predict(x)
    except Exception as error:
        raise UsageError(f"the model fails on examples {shapes}: {error}") from error
    if not isinstance(prediction, Tensor) or prediction.shape[:1] != (count,):
        came = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
        raise UsageError(f"the model must return one tensor with one row per example, not {came} for {shapes}")
    return prediction
