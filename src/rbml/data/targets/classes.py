"""Classes: one of C per example, predicted by logits; with metrics and baselines.

Shapes: n examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.data.batch import Batch, Inputs, hide_classes, masked_mean
from rbml.data.targets.base import Metric, Target
from rbml.data.targets.logistic import logistic_regression
from rbml.errors import DataError, UsageError


def accuracy(prediction: Tensor, batch: Batch) -> Tensor:
    """Return the share of right predictions ``(n, C)`` among the examples that count."""
    right = (hide_classes(prediction, batch).argmax(-1) == batch.y).to(prediction.dtype)
    return masked_mean(right, batch.mask)


def nearest_centroid(support: Batch, query: Batch) -> Tensor:
    """Return the negative squared distance of every query to the mean of every class (Euclidean, on the inputs)."""
    members, (known, asked) = _members(support), _vectors(support.x, query.x)
    # Padding becomes zero first: it may hold anything, and NaN times zero stays NaN.
    x = torch.where(members.any(1)[:, None], known, 0)
    centroids = members.to(x.dtype).T @ x / members.sum(0)[:, None].clamp(min=1)
    return _or_never(-_apart(asked, centroids), members.any(0))


def nearest_neighbour(support: Batch, query: Batch) -> Tensor:
    """Return the negative squared distance of every query to the nearest support example of every class."""
    members, (known, asked) = _members(support), _vectors(support.x, query.x)
    apart = _apart(asked, known)
    nearest = torch.where(members.T, apart[:, None, :], torch.inf).amin(-1)
    return _or_never(-nearest, members.any(0))


def logistic(support: Batch, query: Batch) -> Tensor:
    """Return the logits of a logistic regression on the inputs (:mod:`rbml.data.targets.logistic`)."""
    members = _members(support)
    x = torch.where(members.any(1)[:, None], _flat(support.x), 0)
    return _or_never(logistic_regression(x, members, _flat(query.x)).to(x.dtype), members.any(0))


def _members(support: Batch) -> Tensor:
    """Return whether each support example is of each class and counts, ``(n, C)``.

    C is that of the mask, else one more than the largest label.
    """
    present, counts = support.mask.get("class"), support.mask.get("example")
    classes = int(support.y.max()) + 1 if present is None else len(present)
    members = support.y[:, None] == torch.arange(classes, device=support.y.device)
    return members if counts is None else members & counts[:, None]


def _apart(x: Tensor, others: Tensor) -> Tensor:
    """Return squared Euclidean distances ``(n, m)`` without a tensor of ``(n, m, numbers)`` in between."""
    return (x**2).sum(1, keepdim=True) - 2 * x @ others.T + (others**2).sum(1)


def _or_never(logits: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, logits, torch.finfo(logits.dtype).min / 4)


def _vectors(support: Inputs, query: Inputs) -> tuple[Tensor, Tensor]:
    """Return inputs as one row of numbers per example.

    Padded ids ``(n, length)`` of words become the counts of each id, of unit norm: their order says nothing.
    """
    if isinstance(support, Tensor) or isinstance(query, Tensor) or set(support) != {"ids"}:
        return _flat(support), _flat(query)
    size = 1 + max(int(support["ids"].max()), int(query["ids"].max()))
    return _counts(support["ids"], size), _counts(query["ids"], size)


def _counts(ids: Tensor, size: int) -> Tensor:
    ones = (ids != 0).float()  # 0 is padding
    return F.normalize(ones.new_zeros(len(ids), size).scatter_add(1, ids, ones), dim=1)


def _flat(x: Inputs) -> Tensor:
    """Return inputs as one row of numbers per example, ``(n, ...)`` to ``(n, numbers)``."""
    if isinstance(x, Tensor):
        rows = x.reshape(len(x), -1)
        return rows if rows.is_floating_point() else rows.float()
    return torch.cat([_flat(leaf) for leaf in x.values()], 1)


def check(prediction: Tensor, batch: Batch) -> None:
    """Refuse a prediction and labels that do not fit.

    Args:
        prediction: ``(n, C)``.
        batch: with labels ``(n,)`` in ``0 .. C-1``.

    Raises:
        UsageError: for labels that are not int64, are out of range, or are not one per example.
    """
    y = batch.y
    if y.dtype != torch.int64:
        raise UsageError(f"the labels are {y.dtype}: classes are torch.int64, use y.long(), or real targets")
    if prediction.dim() != 2 or y.shape != prediction.shape[:1]:
        shapes = f"{tuple(prediction.shape)} for labels {tuple(y.shape)}"
        raise UsageError(f"to classify, a model must return (n, C) for labels (n,), not {shapes}")
    counts = batch.mask.get("example")
    labels = y if counts is None else y[counts]
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < prediction.shape[1]:
        low, high, classes = int(labels.min()), int(labels.max()), prediction.shape[1]
        raise UsageError(f"labels must be 0 .. {classes - 1} for {classes} outputs, but go from {low} to {high}")


def read(raw: Sequence[Any], names: Sequence[str] | None = None) -> tuple[Tensor, list[str]]:
    """Return labels of any kind as int64 ``(n,)``, and the names of the classes in their order.

    Args:
        raw: one label per example.
        names: the classes, if they are known; ``None`` takes those that occur, sorted.

    Raises:
        DataError: for a label that is not among the names.

    >>> read(["b", "a", "b"])
    (tensor([1, 0, 1]), ['a', 'b'])
    """
    if names is None:
        kinds, places = np.unique(np.asarray(raw), return_inverse=True)
        return torch.as_tensor(places.reshape(-1), dtype=torch.int64), [str(kind) for kind in kinds.tolist()]
    place = {name: index for index, name in enumerate(names)}
    if strange := [str(one) for one in raw if str(one) not in place]:
        raise DataError(f"{strange[0]!r} is not one of the classes: {', '.join(names)}.")
    return torch.tensor([place[str(one)] for one in raw], dtype=torch.int64), list(names)


def decode(prediction: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return one record per example: the likeliest ``class``, its ``probability``, and the ``probabilities`` of all.

    Args:
        prediction: logits ``(n, C)``.
        names: the C names of the classes.

    Raises:
        UsageError: if the number of outputs is not that of the names.
    """
    if prediction.dim() != 2 or prediction.shape[1] != len(names):
        raise UsageError(f"{len(names)} classes need {len(names)} outputs per example, not {tuple(prediction.shape)}")
    records = []
    for row in torch.softmax(prediction.double(), 1).tolist():
        best = max(range(len(row)), key=row.__getitem__)
        chances = dict(zip(names, row, strict=True))
        records.append({"class": names[best], "probability": row[best], "probabilities": chances})
    return records


ACCURACY = Metric("accuracy", accuracy, "higher", "%")

CLASSES = Target(
    kind="classes",
    loss=F.cross_entropy,
    metrics=(ACCURACY,),
    baselines={
        "nearest centroid": nearest_centroid,
        "nearest neighbour": nearest_neighbour,
        "logistic regression": logistic,
    },
    check=check,
    read=read,
    decode=decode,
)
"""One of C classes per example."""
