"""Checks of what a learner is given, so that wrong use is said in plain words and not from deep inside a transform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rbml.autodiff.remedies import named
from rbml.errors import RbmlError, UsageError
from rbml.tasks import Batch, Episodes

Predict = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def check_episodes(episodes: Episodes, ways: int | None, dtype: torch.dtype, predict: Predict) -> None:
    """Refuse episodes that do not fit together or do not fit the model; arguments as :func:`check_batch`.

    Raises:
        UsageError: naming what does not fit.
    """
    for batch in episodes:
        _check_shapes(batch, 2)
        _check_values(batch, ways, dtype, predict)
    if episodes.support.x.shape[0] != episodes.query.x.shape[0]:
        raise UsageError(f"support has {episodes.support.x.shape[0]} tasks, query {episodes.query.x.shape[0]}")


def check_batch(batch: Batch, ways: int | None, dtype: torch.dtype, predict: Predict) -> None:
    """Refuse a batch of one task that would fail deep inside, or not fail and mean nothing.

    Args:
        batch: examples and targets.
        ways: how many classes there are; ``None`` is as many as the model has outputs.
        dtype: of the model.
        predict: the model.

    Raises:
        UsageError: naming what does not fit.
    """
    _check_shapes(batch, 1)
    _check_values(batch, ways, dtype, predict)


def _check_shapes(batch: Batch, lead: int) -> None:
    what = "(n, ...)" if lead == 1 else "(B, n, ...)"
    if batch.x.dim() < lead or batch.x.shape[:lead] != batch.y.shape[:lead]:
        raise UsageError(f"x and y must both begin with {what}, not {tuple(batch.x.shape)} and {tuple(batch.y.shape)}")
    if 0 in batch.x.shape[:lead]:
        raise UsageError(f"there is no example in a batch of shape {tuple(batch.x.shape)}")


def _check_values(batch: Batch, ways: int | None, dtype: torch.dtype, predict: Predict) -> None:
    x, y = batch.x, batch.y
    if x.is_floating_point() and x.dtype != dtype:
        raise UsageError(f"the examples are {x.dtype}, the model is {dtype}: use episodes.to({dtype}) or model.to(...)")
    if y.is_floating_point():
        return
    if y.dtype != torch.int64:
        raise UsageError(f"the labels are {y.dtype}: classes are torch.int64, use y.long(); other targets are floats")
    if ways is None:
        ways = _outputs(predict, (x if y.dim() == 1 else x[0])[:2])
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= ways:
        raise UsageError(f"labels must be 0 .. {ways - 1} for a head of {ways} classes, but go from {low} to {high}")


def _outputs(predict: Predict, x: Tensor) -> int:
    prediction = _attempt(predict, x)
    if prediction.dim() < 2:
        raise UsageError(f"to tell classes apart a model must return (n, classes), not {tuple(prediction.shape)}")
    return prediction.shape[1]


@contextmanager
def explained(predict: Predict, loss: Loss, batch: Batch) -> Iterator[None]:
    """Where the work inside fails, try the model and the loss by themselves on ``batch``, and say which one it is.

    Nothing is swallowed: an error that neither explains goes on as it is.

    Raises:
        UsageError: if the model or the loss fails by itself.
    """
    try:
        yield
    except RbmlError:
        raise
    except Exception as error:
        prediction = _attempt(predict, batch.x)
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


def _attempt(predict: Predict, x: Tensor) -> Tensor:
    """Return the prediction for the examples of one task, or say why there is none."""
    try:
        with torch.no_grad():
            prediction = predict(x)
    except Exception as error:
        raise UsageError(f"the model fails on examples {tuple(x.shape)} of {x.dtype}: {error}") from error
    if not isinstance(prediction, Tensor) or prediction.shape[:1] != x.shape[:1]:
        came = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
        raise UsageError(f"the model must return one tensor with a row an example, not {came} for {tuple(x.shape)}")
    return prediction
