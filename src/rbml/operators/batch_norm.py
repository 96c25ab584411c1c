r"""Batch norm by the statistics of the batch, with correct and fast derivatives of every order.

PyTorch's own is right for one forward derivative and any number of backward ones, but a forward derivative of its
forward derivative is silently wrong, and the forward derivative of its gradient (which an adjoint sweep takes) needs
twice as many passes over the activations as necessary. Here, with means over all axes except the channels,

.. math::

    y = a (x - \bar x) + b, \qquad a = w r, \qquad r = (\overline{(x - \bar x)^2} + \epsilon)^{-1/2}
    \qquad\text{and}\qquad
    g_x = a (g - \bar g - \hat x \, \overline{g \hat x}), \qquad \hat x = r (x - \bar x)

are computed by PyTorch's kernels, and their derivatives as linear combinations of at most four tensors with one number
per channel. Only x (and g) and numbers per channel are kept: the mean and r are outputs of the first function and
inputs of the second, with their own derivatives, so that they are never computed again. The derivatives are written
with ordinary operators, so that they can be differentiated again. Vectorised tasks become channels. A small batch is
normalised by ordinary operators from the start.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import Function

from rbml.errors import UsageError
from rbml.operators.convolution import is_traced

LARGE = 2**17
"""The number of values per task from which the custom derivatives, which cost a millisecond, are worth it."""

Saved = Any
"""The context of a :class:`torch.autograd.Function`."""

Dims = tuple[Any, ...]
"""The dimension of the tasks in each input of a vectorised function; ``None`` for inputs without one."""


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise ``x`` by its own mean and biased variance per channel.

    Args:
        x: ``(n, channels, ...)``, float32 or float64, with more than one value per channel.
        weight: ``(channels,)``; ``None`` means one.
        bias: ``(channels,)``; ``None`` means zero.
        eps: a small number that is added to the variance.
    """
    weight = x.new_ones(x.shape[1]) if weight is None else weight
    bias = x.new_zeros(x.shape[1]) if bias is None else bias
    if is_traced() and not _written_out():
        traced: Tensor = _TracedNormalise.apply(x, weight, bias, eps)[0]  # type: ignore[no-untyped-call]
        return traced
    if x.numel() < LARGE or _written_out():
        centred = x - _mean(x)
        r = torch.rsqrt(_mean(centred * centred) + eps)
        return torch.addcmul(_wide(bias, x), centred, r * _wide(weight, x))
    y: Tensor = _Normalise.apply(x, weight, bias, eps)[0]  # type: ignore[no-untyped-call]
    return y


def masked_batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, mask: Tensor) -> Tensor:
    r"""Normalise ``x`` by the mean and the biased variance of the examples that count, per channel.

    .. math:: \bar x = \frac{\sum_i w_i x_i}{\sum_i w_i}, \qquad
              \sigma^2 = \frac{\sum_i w_i (x_i - \bar x)^2}{\sum_i w_i}, \qquad w_i \in \{0, 1\}

    Args:
        x: ``(n, channels, ...)``.
        weight: ``(channels,)``; ``None`` means one.
        bias: ``(channels,)``; ``None`` means zero.
        eps: a small number that is added to the variance.
        mask: ``(n,)``, boolean.

    Raises:
        UsageError: if ``x`` does not have one row per example.
    """
    mean, variance = masked_moments(x, mask)
    weight = x.new_ones(x.shape[1]) if weight is None else weight
    bias = x.new_zeros(x.shape[1]) if bias is None else bias
    return torch.addcmul(_wide(bias, x), x - _wide(mean, x), _wide(torch.rsqrt(variance + eps) * weight, x))


def masked_moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the biased variance per channel, ``(channels,)`` each, of the examples that count.

    Raises:
        UsageError: if ``x`` does not have one row per example.
    """
    if x.shape[0] != mask.shape[0]:
        raise UsageError(
            f"batch norm sees {tuple(x.shape)}, and the mask is of {mask.shape[0]} examples: with tasks of unequal "
            "size it needs one row per example; use layer or group norm, or tasks of one size"
        )
    counts = mask.view(-1, *[1] * (x.dim() - 1))
    axes = [axis for axis in range(x.dim()) if axis != 1]
    share = mask.to(x.dtype).sum() * math.prod(x.shape[2:])
    mean = torch.where(counts, x, 0).sum(axes) / share
    return mean, (torch.where(counts, x - _wide(mean, x), 0) ** 2).sum(axes) / share


def _gradient(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias from g, the gradient of y; mean and r are those of x."""
    if _written_out():
        centred, r = x - _wide(mean, x), _wide(r, x)
        along = _mean(g * centred) * r
        by_x = r * _wide(weight, x) * (g - _mean(g) - centred * r * along)
        return by_x, along.flatten() * _count(x), _mean(g).flatten() * _count(x)
    function = _TracedGradient if is_traced() else _Gradient
    by_x, by_weight, by_bias = function.apply(g, x, weight, mean, r)  # type: ignore[no-untyped-call]
    return by_x, by_weight, by_bias


def _written_out() -> bool:
    """Return whether only ordinary operators can be used.

    - In a forward derivative of a forward derivative PyTorch calls the ``jvp`` of a :class:`torch.autograd.Function`
      without the outer of the two, and the result is silently wrong (pytorch/pytorch#197867).
    - ``functionalize`` allows no such function.
    """
    levels = [level.key() for level in get_interpreter_stack() or ()]
    return levels.count(TransformType.Jvp) > 1 or TransformType.Functionalize in levels


class _Normalise(Function):
    """From (x, weight, bias, eps) to (y, mean, r)."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Saved, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, _, _ = inputs
        ctx.set_materialize_grads(False)  # mean and r have a derivative only if the gradient is differentiated
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.save_for_forward(x, weight, *output[1:])

    @staticmethod
    def vmap(info: Any, dims: Dims, *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        x, weight, bias = (_folded(info.batch_size, *pair) for pair in zip(inputs[:3], dims[:3], strict=True))
        return _unfolded(info.batch_size, _Normalise.apply(x, weight, bias, inputs[3]))  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(
        ctx: Saved, g: Tensor | None, by_mean: Tensor | None, by_r: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, r = ctx.saved_tensors
        g = torch.zeros_like(x) if g is None else g
        by_x, by_weight, by_bias = _gradient(g, x, weight, mean, r)
        if by_mean is not None or by_r is not None:
            slope = torch.zeros_like(r) if by_r is None else -(r**3) * by_r / _count(x)
            shift = torch.zeros_like(r) if by_mean is None else by_mean / _count(x)
            by_x = by_x + _combination(shift, (slope, x - _wide(mean, x)))
        return by_x, by_weight, by_bias, None

    @staticmethod
    def jvp(
        ctx: Saved, dx: Tensor | None, dweight: Tensor | None, dbias: Tensor | None, _: None
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, mean, r = ctx.saved_tensors
        dx = torch.zeros_like(x) if dx is None else dx
        centred, a = x - _wide(mean, x), weight * r
        dmean = _mean(dx).flatten()
        dr = -(r**3) * _mean(centred * dx).flatten()
        da = weight * dr if dweight is None else weight * dr + dweight * r
        constant = -a * dmean if dbias is None else dbias - a * dmean
        return _combination(constant, (a, dx), (da, centred)), dmean, dr


class _Gradient(Function):
    """:func:`_gradient` as a function of five independent inputs: g, x, weight, mean and r."""

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        backward = torch.ops.aten.native_batch_norm_backward
        found: tuple[Tensor, Tensor, Tensor] = backward(g, x, weight, None, None, mean, r, True, 0.0, [True] * 3)
        return found

    @staticmethod
    def setup_context(ctx: Saved, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.save_for_forward(*inputs, *output[1:])

    @staticmethod
    def vmap(info: Any, dims: Dims, *inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        folded = (_folded(info.batch_size, *pair) for pair in zip(inputs, dims, strict=True))
        return _unfolded(info.batch_size, _Gradient.apply(*folded))  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Saved, u: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor, ...]:
        r"""Pull back u, p and q, the cotangents of the gradients by x, weight and bias.

        With :math:`c = x - \bar x`, :math:`s = \overline{g c}` and :math:`k = \overline{u c}` the gradients are
        :math:`a (g - \bar g) - a r^2 s c`, and n times :math:`r s` and :math:`\bar g`, for n values per channel.
        """
        g, x, weight, mean, r, by_weight, by_bias = ctx.saved_tensors
        n, a = _count(x), weight * r
        s, mean_g = by_weight / (n * r), by_bias / n
        centred, mean_u = x - _wide(mean, x), _mean(u).flatten()
        k, ug = _mean(u * centred).flatten(), _mean(u * g).flatten() - mean_u * mean_g
        of_g, of_u = r * p - a * r**2 * k, -a * r**2 * s
        by_g = _combination(q - a * mean_u, (a, u), (of_g, centred))
        by_x = _combination(torch.zeros_like(r), (of_g, g), (of_u, u))
        by_mean = -n * (of_g * mean_g + of_u * mean_u)
        by_r = n * (weight * ug - 3 * weight * r**2 * s * k + p * s)
        return by_g, by_x, n * (r * ug - r**3 * s * k), by_mean, by_r

    @staticmethod
    def jvp(
        ctx: Saved, dg: Tensor, dx: Tensor, dweight: Tensor, dmean: Tensor, dr: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        g, x, weight, mean, r, by_weight, by_bias = ctx.saved_tensors
        n, a, da = _count(x), weight * r, dweight * r + weight * dr
        s, mean_g = by_weight / (n * r), by_bias / n
        centred, dmean_g = x - _wide(mean, x), _mean(dg).flatten()
        ds = (_mean(dg * centred) + _mean(g * dx)).flatten() - dmean * mean_g
        b, db = -a * r**2 * s, -(da * r**2 * s + a * r * (2 * dr * s + r * ds))
        by_x = _combination(-a * dmean_g - da * mean_g - b * dmean, (a, dg), (da, g), (b, dx), (db, centred))
        return by_x, n * (dr * s + r * ds), n * dmean_g


class _TracedNormalise(Function):
    """:class:`_Normalise` by ordinary operators, for a trace: tasks stay apart, in whatever layout they have."""

    generate_vmap_rule = True
    setup_context, backward, jvp = _Normalise.setup_context, _Normalise.backward, _Normalise.jvp

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean = _mean(x)
        centred = x - mean
        r = torch.rsqrt(_mean(centred * centred) + eps).flatten()
        return torch.addcmul(_wide(bias, x), centred, _wide(r * weight, x)), mean.flatten(), r


class _TracedGradient(Function):
    """:class:`_Gradient` by ordinary operators."""

    generate_vmap_rule = True
    setup_context, backward, jvp = _Gradient.setup_context, _Gradient.backward, _Gradient.jvp

    @staticmethod
    def forward(g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, a, mean_g = _count(x), weight * r, _mean(g).flatten()
        centred = x - _wide(mean, x)
        along = _mean(g * centred).flatten()
        by_x = _combination(-a * mean_g, (a, g), (-a * r**2 * along, centred))
        return by_x, n * r * along, n * mean_g


def _folded(tasks: int, tensor: Tensor, at: int | None) -> Tensor:
    """Return a tensor of all tasks with the tasks' channels side by side."""
    channel = min(tensor.dim() - 1 - (at is not None), 1)
    stacked = tensor.movedim(at, channel) if at is not None else tensor.unsqueeze(channel)
    return stacked.expand(*stacked.shape[:channel], tasks, *stacked.shape[channel + 1 :]).flatten(channel, channel + 1)


def _unfolded(tasks: int, found: tuple[Tensor, Tensor, Tensor]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Return results for all channels with the tasks as a separate dimension, and that dimension."""
    x, *channels = found
    apart = (each.view(tasks, -1) for each in channels)
    return (x.view(x.shape[0], tasks, -1, *x.shape[2:]), *apart), (1, 0, 0)


def _combination(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """Return a number per channel plus tensors times numbers per channel, in one pass per tensor."""
    found = _wide(constant, terms[0][1])
    for factor, tensor in terms:
        found = torch.addcmul(found, _wide(factor, tensor), tensor)
    return found


def _mean(x: Tensor) -> Tensor:
    """Return the mean per channel, broadcastable to x."""
    return x.mean([axis for axis in range(x.dim()) if axis != 1], keepdim=True)


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    """Return one number per channel, broadcastable to x."""
    return channels.view(-1, *[1] * (x.dim() - 2))


def _count(x: Tensor) -> int:
    """Return the number of values per channel."""
    return x.numel() // x.shape[1]
