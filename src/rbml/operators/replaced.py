"""Operators that PyTorch cannot differentiate as a hypergradient needs, replaced by equal formulas that it can.

The adjoint sweep takes a forward derivative of a gradient, vectorised over tasks. A few common operators do not have
it: ``F.mse_loss`` (PyTorch writes into an immutable zero, and crashes where the step is traced), the mean of
``F.smooth_l1_loss`` (it crashes too), ``F.huber_loss``, ``F.soft_margin_loss``. Fused attention has no second
derivative of any kind. ``F.batch_norm`` has no derivative by statistics that it is given; with those of the batch it is
replaced by :mod:`rbml.operators.batch_norm`. ``F.max_pool2d`` is slow on a CPU: :mod:`rbml.operators.max_pool`. Inside
:class:`Differentiable` each is the same function of the same arguments, made of operators that have every derivative;
nothing else is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from rbml.operators.batch_norm import batch_norm
from rbml.operators.max_pool import max_pool2d


def _reduced(each: Tensor, reduction: str) -> Tensor:
    return {"mean": each.mean, "sum": each.sum}[reduction]() if reduction != "none" else each


def _mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", **rest: Any) -> Tensor:
    if any(value is not None for value in rest.values()):  # weights, which PyTorch itself writes out, or old options
        return F.mse_loss(input, target, reduction=reduction, **rest)
    if input.shape != target.shape:
        return F.mse_loss(input, target, reduction=reduction)  # it warns, and broadcasts
    return _reduced((input - target) ** 2, reduction)


def _huber_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    each = delta * F.smooth_l1_loss(input, target, reduction="none", beta=delta)
    return _reduced(each if weight is None else each * weight, reduction)


def _smooth_l1_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0, **rest: Any
) -> Tensor:
    return _reduced(F.smooth_l1_loss(input, target, reduction="none", beta=beta, **rest), reduction)


def _soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", **rest: Any) -> Tensor:
    if any(value is not None for value in rest.values()):
        return F.soft_margin_loss(input, target, reduction=reduction, **rest)
    agreement = input * target
    return F.binary_cross_entropy_with_logits(agreement, torch.ones_like(agreement), reduction=reduction)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    eps: float = 1e-5,
    **rest: Any,
) -> Tensor:
    if training or running_mean is None or running_var is None:
        updates = training and running_mean is not None
        too_few = input.dim() < 2 or input.numel() == input.shape[1]  # an error, which PyTorch words
        if updates or too_few or input.dtype not in {torch.float32, torch.float64}:
            return F.batch_norm(
                input, running_mean, running_var, weight=weight, bias=bias, training=training, eps=eps, **rest
            )
        return batch_norm(input, weight, bias, eps)
    scale = torch.rsqrt(running_var + eps) * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - running_mean * scale
    shape = (-1,) + (1,) * (input.dim() - 2)
    return input * scale.view(shape) + shift.view(shape)


def _unfused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an attention function that runs without PyTorch's fused kernels."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(SDPBackend.MATH):
            return function(*args, **kwargs)

    return run


REPLACED: Mapping[Callable[..., Any], Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    F.max_pool2d: max_pool2d,
    F.mse_loss: _mse_loss,
    F.huber_loss: _huber_loss,
    F.smooth_l1_loss: _smooth_l1_loss,
    F.soft_margin_loss: _soft_margin_loss,
    F.scaled_dot_product_attention: _unfused(F.scaled_dot_product_attention),
    F.multi_head_attention_forward: _unfused(F.multi_head_attention_forward),
}
"""The operators that are replaced, and by what."""


class Differentiable(TorchFunctionMode):
    """A context in which the operators of :data:`REPLACED` have every derivative, wherever they are called.

    It costs about two microseconds a PyTorch call made inside, and nothing once a step is traced.

    >>> with Differentiable():
    ...     F.mse_loss(torch.zeros(2), torch.ones(2))
    tensor(1.)
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the replacement of ``func`` where it has one, else ``func`` itself."""
        return REPLACED.get(func, func)(*args, **(kwargs or {}))
