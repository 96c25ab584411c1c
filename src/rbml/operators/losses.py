"""Losses with every derivative, which refuse shapes that would be broadcast against each other.

``F.mse_loss`` has no forward derivative of its gradient (PyTorch writes into an immutable zero, and crashes when the
step is traced), nor have the mean of ``F.smooth_l1_loss`` (it crashes too), ``F.huber_loss`` and
``F.soft_margin_loss``. ``F.gaussian_nll_loss`` looks at values, which ``vmap`` does not allow.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError


def check_shapes(name: str, prediction: Tensor, target: Tensor) -> None:
    """Refuse a prediction and a target of different shapes, which PyTorch would broadcast into n x n differences.

    Raises:
        UsageError: naming both shapes.
    """
    if prediction.shape != target.shape:
        raise UsageError(
            f"{name} needs a prediction and a target of one shape, not {tuple(prediction.shape)} and "
            f"{tuple(target.shape)}: they would be broadcast. Use target.unsqueeze(-1), prediction.squeeze(-1), or "
            "write out what you mean with expand_as"
        )


def reduced(each: Tensor, reduction: str) -> Tensor:
    """Return the mean, the sum or all of ``each``, as ``reduction=`` of PyTorch's losses."""
    return {"mean": each.mean, "sum": each.sum}[reduction]() if reduction != "none" else each


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", **rest: Any) -> Tensor:
    """Return ``F.mse_loss`` of the same arguments."""
    check_shapes("mse_loss", input, target)
    if any(
        value is not None for value in rest.values()
    ):  # weights, for which PyTorch uses ordinary operators, or old options
        return F.mse_loss(input, target, reduction=reduction, **rest)
    return reduced((input - target) ** 2, reduction)


def l1_loss(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return ``F.l1_loss`` of the same arguments."""
    check_shapes("l1_loss", input, target)
    return F.l1_loss(input, target, *args, **kwargs)


def huber_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Return ``F.huber_loss`` of the same arguments."""
    check_shapes("huber_loss", input, target)
    each = delta * F.smooth_l1_loss(input, target, reduction="none", beta=delta)
    return reduced(each if weight is None else each * weight, reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0, **rest: Any) -> Tensor:
    """Return ``F.smooth_l1_loss`` of the same arguments."""
    check_shapes("smooth_l1_loss", input, target)
    return reduced(F.smooth_l1_loss(input, target, reduction="none", beta=beta, **rest), reduction)


def soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", **rest: Any) -> Tensor:
    """Return ``F.soft_margin_loss`` of the same arguments."""
    check_shapes("soft_margin_loss", input, target)
    if any(value is not None for value in rest.values()):
        return F.soft_margin_loss(input, target, reduction=reduction, **rest)
    agreement = input * target
    return F.binary_cross_entropy_with_logits(agreement, torch.ones_like(agreement), reduction=reduction)


def poisson_nll_loss(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return ``F.poisson_nll_loss`` of the same arguments."""
    check_shapes("poisson_nll_loss", input, target)
    return F.poisson_nll_loss(input, target, *args, **kwargs)


def kl_div(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return ``F.kl_div`` of the same arguments."""
    check_shapes("kl_div", input, target)
    return F.kl_div(input, target, *args, **kwargs)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    r"""Return ``F.gaussian_nll_loss`` of the same arguments: :math:`(\log v + (p - y)^2 / v) / 2`.

    As PyTorch's, it counts a variance below ``eps`` as ``eps`` without changing its derivative. A negative variance
    gives NaN rather than an error, because ``vmap`` does not allow to look at values.

    Raises:
        UsageError: if the shapes do not fit together.
    """
    check_shapes("gaussian_nll_loss", input, target)
    variance = var if isinstance(var, Tensor) else torch.full_like(input, var)
    if variance.shape != input.shape:
        if variance.shape == input.shape[:-1]:
            variance = variance.unsqueeze(-1)
        elif variance.shape[:-1] != input.shape[:-1] or variance.shape[-1] != 1:
            raise UsageError(
                f"gaussian_nll_loss needs a variance of shape {tuple(input.shape)}, or one number for the last axis, "
                f"not {tuple(variance.shape)}"
            )
    least = torch.where(variance < 0, math.nan, variance.detach().clamp(min=eps) - variance.detach())
    variance = variance + least
    each = 0.5 * (torch.log(variance) + (input - target) ** 2 / variance)
    return reduced(each + 0.5 * math.log(2 * math.pi) if full else each, reduction)
