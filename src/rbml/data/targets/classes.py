"""Classes: the target is one of C, the prediction has a logit for each.

Shapes: n examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.data.batch import Batch, hide_classes, masked_mean
from rbml.data.targets.base import Metric, Target
from rbml.errors import UsageError


def accuracy(prediction: Tensor, batch: Batch) -> Tensor:
    """Return the share of right predictions among the examples that count."""
    return masked_mean((hide_classes(prediction, batch).argmax(-1) == batch.y).float(), batch.mask)


def check(prediction: Tensor, batch: Batch) -> None:
    """Refuse labels that the prediction has no logit for.

    Raises:
        UsageError: for labels out of range.
    """
    if batch.y.numel() and not 0 <= int(batch.y.min()) <= int(batch.y.max()) < prediction.shape[-1]:
        raise UsageError(f"labels must be 0 .. {prediction.shape[-1] - 1}, not {batch.y.min()} .. {batch.y.max()}")


def read(labels: Sequence[Any], names: Sequence[str] | None) -> tuple[Tensor, list[str]]:
    """Return raw labels as numbers, and the names of the classes."""
    known = sorted({str(label) for label in labels}) if names is None else list(names)
    return torch.tensor([known.index(str(label)) for label in labels]), known


def decode(prediction: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the class, its probability, and those of all classes for every prediction ``(n, C)``."""
    found = []
    for row in torch.softmax(prediction.double(), -1).tolist():
        best = max(range(len(row)), key=row.__getitem__)
        every = dict(zip(names, row, strict=True))
        found.append({"class": names[best], "probability": row[best], "probabilities": every})
    return found


CLASSES = Target("classes", F.cross_entropy, (Metric("accuracy", accuracy, "higher", "%"),), {}, check, read, decode)
"""One of C classes."""
