"""Real values: the loss, metrics and baselines of regression.

Shapes: n examples, d targets. A prediction is ``(n, d)``, or ``(n, 2d)`` if the model also predicts its uncertainty: d
means and then d logarithms of variances, as :class:`rbml.models.BayesianLinear` returns them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbml.data.batch import Batch, Inputs, masked_mean
from rbml.data.targets.base import Metric, Target
from rbml.data.targets.units import Units
from rbml.errors import DataError, UsageError

WIDTH = 1.959964
"""95 % of a normal distribution lie within this many standard deviations of the mean."""

PLAIN = Units()
"""The units of the data, as they are."""

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-4, 9))
"""The strengths among which the ridge baseline chooses."""


def loss(prediction: Tensor, y: Tensor) -> Tensor:
    r"""Return the mean squared error or, for a prediction with variances, the mean negative log likelihood.

    .. math:: \frac{1}{nd} \sum (m - y)^2 \qquad\text{or}\qquad
              \frac{1}{2nd} \sum \Big( \frac{(m - y)^2}{v} + \log v + \log 2\pi \Big)

    Args:
        prediction: ``(n, d)``, or ``(n, 2d)``: means m and logarithms of variances v.
        y: targets ``(n, d)``.

    Raises:
        UsageError: for any other shapes: they would broadcast, and the result would be meaningless.

    >>> float(loss(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]])))
    2.5
    """
    mean, log_variance = parted(prediction, y)
    # Not F.mse_loss: it has no forward derivative.
    squared = (mean - y) ** 2
    if log_variance is None:
        return squared.mean()
    return 0.5 * (squared * torch.exp(-log_variance) + log_variance + math.log(2 * math.pi)).mean()


def parted(prediction: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the means ``(n, d)`` and the logarithms of variances ``(n, d)``, ``None`` if the prediction has none.

    Raises:
        UsageError: if the shapes do not fit.
    """
    if prediction.shape == y.shape:
        return prediction, None
    if prediction.dim() == y.dim() > 1 and prediction.shape == (*y.shape[:-1], 2 * y.shape[-1]):
        return prediction[..., : y.shape[-1]], prediction[..., y.shape[-1] :]
    raise UsageError(
        f"real targets {tuple(y.shape)} need a prediction of the same shape (or twice as wide: means and log "
        f"variances), not {tuple(prediction.shape)}: give y a column per target, y[:, None] for one"
    )


def mean_absolute_error(prediction: Tensor, batch: Batch, units: Units = PLAIN) -> Tensor:
    """Return the mean absolute error over the examples that count, in the user's units."""
    return masked_mean(units.error(parted(prediction, batch.y)[0] - batch.y).abs(), batch.mask)


def root_mean_squared_error(prediction: Tensor, batch: Batch, units: Units = PLAIN) -> Tensor:
    """Return the root of the mean squared error over the examples that count, in the user's units."""
    return masked_mean(units.error(parted(prediction, batch.y)[0] - batch.y) ** 2, batch.mask).sqrt()


def r2(prediction: Tensor, batch: Batch) -> Tensor:
    """Return the share of the variance that is explained (R squared, 1 at best), averaged over the targets.

    If all targets are the same there is no variance: the result is then 1 for a perfect prediction and 0 otherwise.
    """
    y, mean = batch.y, parted(prediction, batch.y)[0]
    weight = _weights(batch, y)
    centre = torch.where(weight > 0, y, 0).sum(0) / weight.sum(0)
    total = torch.where(weight > 0, (y - centre) ** 2, 0).sum(0)
    left = torch.where(weight > 0, (y - mean) ** 2, 0).sum(0)
    safe = torch.where(total > 0, total, 1)
    return torch.where(total > 0, 1 - left / safe, (left == 0).to(left.dtype)).mean()


def coverage(prediction: Tensor, batch: Batch) -> Tensor:
    """Return the share of targets inside the 95 % intervals of a prediction with variances.

    Raises:
        UsageError: for a prediction without variances.
    """
    mean, log_variance = parted(prediction, batch.y)
    if log_variance is None:
        raise UsageError("a prediction without variances has no intervals: use a BayesianLinear head (alpaca)")
    inside = (mean - batch.y).abs() <= WIDTH * torch.exp(0.5 * log_variance)
    return masked_mean(inside.to(batch.y.dtype), batch.mask)


def support_mean(support: Batch, query: Batch) -> Tensor:
    """Predict the mean of the support targets for every query."""
    weight = _weights(support, support.y)
    mean = torch.where(weight > 0, support.y, 0).sum(0) / weight.sum(0)
    return mean.expand_as(query.y)


def nearest(support: Batch, query: Batch) -> Tensor:
    """Predict the target of the nearest support example (Euclidean, on the inputs)."""
    # Written out because cdist rounds differently for other sizes and has no forward derivative.
    apart = ((flat(query.x)[:, None] - flat(support.x)) ** 2).sum(-1)
    counts = support.mask.get("example")
    if counts is not None:
        apart = torch.where(counts, apart, torch.inf)
    return support.y.index_select(0, apart.argmin(1))


def ridge(support: Batch, query: Batch, strengths: Sequence[float] = STRENGTHS) -> Tensor:
    r"""Predict by ridge regression on the inputs alone, its strength chosen by leave-one-out on the support set.

    .. math:: w = (X^\top X + \lambda I)^{-1} X^\top (y - \bar y), \qquad
              e_i = \frac{y_i - \hat y_i}{1 - 1/n - x_i^\top (X^\top X + \lambda I)^{-1} x_i}

    with centred inputs X; the strength with the smallest :math:`\sum e_i^2` is taken, the weakest of several equally
    good ones. The inputs should be of similar scale (standardised). With a single example its target is predicted.
    """
    # In double precision: with more examples than inputs, X X^T is singular but for the strength.
    known, asked = flat(support.x).double(), flat(query.x).double()
    counts = _weights(support, known)[:, :1]
    n = counts.sum()
    x, y = (torch.where(counts > 0, leaf, 0) for leaf in (known, support.y.double()))
    centre_x, centre_y = x.sum(0) / n, y.sum(0) / n
    x, y = (x - centre_x) * counts, (y - centre_y) * counts
    products, sums = x @ x.T, torch.eye(len(x), dtype=x.dtype, device=x.device)
    errors, weights = [], []
    for strength in strengths:
        coefficients = torch.linalg.solve(products + strength * sums, torch.cat([y, products], 1))
        fitted, hat = products @ coefficients[:, : y.shape[1]], coefficients[:, y.shape[1] :].diagonal()[:, None]
        left = (y - fitted) / (1 - 1 / n - hat).clamp(min=torch.finfo(x.dtype).eps)
        errors.append((left**2 * counts).sum())
        weights.append(x.T @ coefficients[:, : y.shape[1]])
    best = torch.stack(errors).argmin()
    weight = torch.stack(weights).index_select(0, best.reshape(1)).squeeze(0)
    return ((asked - centre_x) @ weight + centre_y).to(support.y.dtype)


def flat(x: Inputs) -> Tensor:
    """Return inputs as one row of numbers per example, ``(n, ...)`` to ``(n, numbers)``."""
    if isinstance(x, Tensor):
        return x.flatten(1) if x.dim() > 1 else x[:, None]
    return torch.cat([flat(leaf) for leaf in x.values()], 1)


def check(prediction: Tensor, batch: Batch) -> None:
    """Refuse a prediction and targets that do not fit.

    Raises:
        UsageError: if the targets are not floating point, or the shapes differ.
    """
    if not batch.y.is_floating_point():
        raise UsageError(f"real targets are floating point, but y is {batch.y.dtype}: use y.float(), or classes")
    parted(prediction, batch.y)


def read(raw: Sequence[Any], names: Sequence[str] | None = None, units: Units = PLAIN) -> tuple[Tensor, list[str]]:
    """Return raw targets (a number each, or d numbers) as ``(n, d)`` float32, and the names of the d targets.

    Args:
        raw: in the user's units.
        names: of the targets; ``None`` counts them.
        units: what a model learns.

    Raises:
        DataError: naming the first target that is not a finite number.
        UsageError: if the number of targets is not that of the names.
    """
    rows = [[_number(value, place) for value in _listed(one)] for place, one in enumerate(raw, 1)]
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"every example needs as many targets, but they have {sorted({len(row) for row in rows})}.")
    width = len(rows[0]) if rows else len(names or ["value"])
    if names is None:
        names = ["value"] if width == 1 else [f"value {place}" for place in range(1, width + 1)]
    if len(names) != width:
        raise UsageError(f"{width} targets per example were given for {len(names)} names: {', '.join(names)}")
    y = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), width)
    return units.scaled(y).float(), list(names)


def _listed(one: Any) -> list[Any]:
    if isinstance(one, Tensor | np.ndarray):
        return list(one.flatten().tolist())
    return list(one) if isinstance(one, list | tuple) else [one]


def _number(value: Any, place: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"the target of example {place} is {value!r}: expected a finite number.")
    return number


def decode(prediction: Tensor, names: Sequence[str], units: Units = PLAIN) -> list[dict[str, Any]]:
    """Return a record per example: ``value``, and ``low`` and ``high`` (95 %) where the prediction has variances.

    With several targets each key begins with the name of the target: ``"motor value"``.

    Args:
        prediction: ``(n, d)`` or ``(n, 2d)``.
        names: the d names of the targets.
        units: what the model learned; the records are in the user's.

    Raises:
        UsageError: if the prediction is of another width.

    >>> decode(torch.tensor([[2.0, 0.0]]), ["score"])  # doctest: +ELLIPSIS
    [{'value': 2.0, 'low': 0.0400..., 'high': 3.9599...}]
    """
    d = len(names)
    if prediction.dim() != 2 or prediction.shape[1] not in (d, 2 * d):
        raise UsageError(f"{d} targets ({', '.join(names)}) need {d} or {2 * d} outputs, not {tuple(prediction.shape)}")
    prediction = units.unscaled(prediction)
    columns = {"value": prediction[:, :d]}
    if prediction.shape[1] == 2 * d:
        reach = WIDTH * torch.exp(0.5 * prediction[:, d:])
        columns |= {"low": columns["value"] - reach, "high": columns["value"] + reach}
    lists = {key: column.tolist() for key, column in columns.items()}
    return [
        {(key if d == 1 else f"{name} {key}"): lists[key][row][at] for at, name in enumerate(names) for key in lists}
        for row in range(len(prediction))
    ]


def _weights(batch: Batch, like: Tensor) -> Tensor:
    """Return ones for the numbers that count and zeros for padding, in the shape of ``like`` ``(n, d)``."""
    counts = batch.mask.get("example")
    ones = torch.ones_like(like)
    return ones if counts is None else ones * counts[:, None].to(like.dtype)


def real(offset: Sequence[float] = (0.0,), scale: Sequence[float] = (1.0,)) -> Target:
    """Return real values of which a model learns ``(y - offset) / scale``; a user sees the units of the data alone.

    Args:
        offset: where the targets lie, one number per target: the mean of the training targets.
        scale: how far they spread, one number per target: their standard deviation.

    Raises:
        UsageError: if these do not fit together.

    >>> minutes = real([30.0], [10.0])
    >>> y, names = minutes.read([35, 45], None)
    >>> y.flatten().tolist(), minutes.decode(torch.tensor([[1.0]]), names)
    ([0.5, 1.5], [{'value': 40.0}])
    """
    units = Units(offset, scale)
    return Target(
        kind="real",
        loss=loss,
        metrics=(
            Metric("MAE", partial(mean_absolute_error, units=units), "lower"),
            Metric("RMSE", partial(root_mean_squared_error, units=units), "lower"),
            Metric("R2", r2, "higher"),
        ),
        baselines={"support mean": support_mean, "nearest neighbour": nearest, "ridge": ridge},
        check=check,
        read=partial(read, units=units),
        decode=partial(decode, units=units),
        spec=units.spec(),
        make=real,
        scaled=units.scaled,
        unscaled=units.unscaled,
    )


REAL = real()
"""Real values, in the units of the data."""
