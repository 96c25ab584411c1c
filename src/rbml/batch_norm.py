r"""Batch norm by the statistics of the batch, with derivatives of every order that are right, small and quick.

PyTorch's own is right once forwards and any number of times backwards, but a forward derivative of its forward
derivative is silently wrong, and the forward derivative of its gradient (what an adjoint sweep takes) is put together
from twice as many passes over the activations as it needs. Here, with means over all axes but the channels',

.. math::

    y = a (x - \bar x) + b, \qquad a = w r, \qquad r = (\overline{(x - \bar x)^2} + \epsilon)^{-1/2}
    \qquad\text{and}\qquad
    g_x = a (g - \bar g - \hat x \, \overline{g \hat x}), \qquad \hat x = r (x - \bar x)

are computed by PyTorch's kernels, and their derivatives, linear combinations of at most four tensors with a number a
channel, as such. Only x (and g) are kept for them. The derivatives are ordinary code of ordinary operators, so that
they can be differentiated again. A small batch is normalised by ordinary operators from the start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import Function

LARGE = 2**19
"""From how many values on memory matters more than the millisecond that derivatives of its own cost."""

Saved = Any
"""The context of a :class:`torch.autograd.Function`."""


def batch_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise ``x`` by its own mean and biased variance a channel.

    Args:
        x: ``(n, channels, ...)``, float32 or float64, with more than one value a channel.
        weight: ``(channels,)``; ``None`` is one.
        bias: ``(channels,)``; ``None`` is zero.
        eps: what is added to the variance.
    """
    weight = x.new_ones(x.shape[1]) if weight is None else weight
    bias = x.new_zeros(x.shape[1]) if bias is None else bias
    if x.numel() < LARGE or _written_out():
        centred, r = _statistics(x, eps)
        return torch.addcmul(_wide(bias, x), centred, r * _wide(weight, x))
    y: Tensor = _Normalise.apply(x, weight, bias, eps)[0]  # type: ignore[no-untyped-call]
    return y


def _gradient(
    g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the derivatives by x, weight and bias, where g is the one by y; mean and r are known from before."""
    if _written_out():
        centred, r = _statistics(x, eps)
        along = _mean(g * centred) * r
        by_x = r * _wide(weight, x) * (g - _mean(g) - centred * r * along)
        return by_x, along.flatten() * _count(x), _mean(g).flatten() * _count(x)
    by_x, by_weight, by_bias = _Gradient.apply(g, x, weight, mean, r, eps)  # type: ignore[no-untyped-call]
    return by_x, by_weight, by_bias


def _written_out() -> bool:
    """Say whether only ordinary operators will do.

    - In a forward derivative of a forward derivative PyTorch calls the ``jvp`` of a :class:`torch.autograd.Function`
      without the outer of the two, and the result is silently wrong (pytorch/pytorch#197867).
    - While a step is traced (:mod:`rbml.compiled`) PyTorch takes no such function; the compiler fuses what comes out.
    """
    levels = [level.key() for level in get_interpreter_stack() or ()]
    return levels.count(TransformType.Jvp) > 1 or TransformType.Functionalize in levels


class _Normalise(Function):
    """From (x, weight, bias, eps) to (y, mean, r)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)

    @staticmethod
    def setup_context(ctx: Saved, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, weight, _, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, weight, *output[1:])
        ctx.save_for_forward(x, weight)

    @staticmethod
    def backward(ctx: Saved, g: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, r = ctx.saved_tensors
        return *_gradient(g, x, weight, mean, r, ctx.eps), None

    @staticmethod
    def jvp(ctx: Saved, dx: Tensor, dweight: Tensor, dbias: Tensor, _: None) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        centred, r = _statistics(x, ctx.eps)
        a = _wide(weight, x) * r
        da = _wide(dweight, x) * r - a * r**2 * _mean(centred * dx)
        return _combination(_wide(dbias, x) - a * _mean(dx), (a, dx), (da, centred)), None, None


class _Gradient(Function):
    """:func:`_gradient`, as a function of g, x and weight; mean and r follow from x, and are no inputs of their own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, weight: Tensor, mean: Tensor, r: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        backward = torch.ops.aten.native_batch_norm_backward
        found: tuple[Tensor, Tensor, Tensor] = backward(g, x, weight, None, None, mean, r, True, eps, [True] * 3)
        return found

    @staticmethod
    def setup_context(ctx: Saved, inputs: tuple[Any, ...], output: Any) -> None:
        g, x, weight, _, _, ctx.eps = inputs
        ctx.save_for_backward(g, x, weight)
        ctx.save_for_forward(g, x, weight)

    @staticmethod
    def backward(ctx: Saved, u: Tensor, p: Tensor, q: Tensor) -> tuple[Tensor | None, ...]:
        r"""Pull back u, p and q, the cotangents of the gradients by x, weight and bias.

        With :math:`h = \overline{g \hat x}` and :math:`k = \overline{u \hat x}`, the derivative by :math:`\hat x` is
        :math:`e = (p - a k) g - a h u`, and r enters once more by itself: the gradient by x is proportional to it.
        """
        g, x, weight = ctx.saved_tensors
        p, q = _wide(p, x), _wide(q, x)
        centred, r = _statistics(x, ctx.eps)
        a, mean_u, mean_g = r * _wide(weight, x), _mean(u), _mean(g)
        h, k = r * _mean(g * centred), r * _mean(u * centred)
        agreement = _mean(u * g) - mean_u * mean_g - h * k
        of_u, of_g = -a * h, p - a * k
        by_g = _combination(q - a * mean_u, (a, u), (r * of_g, centred))
        along = of_u * k + of_g * h + a * agreement
        by_x = _combination(
            -r * (of_u * mean_u + of_g * mean_g), (r * of_u, u), (r * of_g, g), (-(r**2) * along, centred)
        )
        return by_g, by_x, (_count(x) * r * agreement).flatten(), None, None, None

    @staticmethod
    def jvp(ctx: Saved, dg: Tensor, dx: Tensor, dweight: Tensor, *_: None) -> tuple[Tensor, Tensor, Tensor]:
        g, x, weight = ctx.saved_tensors
        weight, dweight = _wide(weight, x), _wide(dweight, x)
        centred, r = _statistics(x, ctx.eps)
        mean_g, dmean_g = _mean(g), _mean(dg)
        dr = -(r**3) * _mean(centred * dx)
        slope = _mean(g * centred)
        h = r * slope
        dh = dr * slope + r * (_mean(dg * centred) + _mean(g * dx) - mean_g * _mean(dx))
        a, da = weight * r, dweight * r + weight * dr
        b, db = -a * r * h, -(da * r * h + a * dr * h + a * r * dh)
        constant = -a * dmean_g - da * mean_g - b * _mean(dx)
        by_x = _combination(constant, (a, dg), (da, g), (b, dx), (db, centred))
        return by_x, _count(x) * dh.flatten(), _count(x) * dmean_g.flatten()


def _combination(constant: Tensor, *terms: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sum of a number a channel and of tensors times a number a channel, in one pass a tensor."""
    for factor, tensor in terms:
        constant = torch.addcmul(constant, factor, tensor)
    return constant


def _statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x less its mean, and one over its standard deviation."""
    centred = x - _mean(x)
    return centred, torch.rsqrt(_mean(centred * centred) + eps)


def _mean(x: Tensor) -> Tensor:
    """Return the mean a channel, broadcastable to x."""
    return x.mean([axis for axis in range(x.dim()) if axis != 1], keepdim=True)


def _wide(channels: Tensor, x: Tensor) -> Tensor:
    """Return a number a channel, broadcastable to x."""
    return channels.view(-1, *[1] * (x.dim() - 2))


def _count(x: Tensor) -> int:
    """Return how many values a channel has."""
    return x.numel() // x.shape[1]
