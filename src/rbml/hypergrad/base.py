"""What an engine is, what it returns, and the slow truth that all of them are held against."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, func

from rbml.errors import BlindError
from rbml.inner import Carry, Inner, roll
from rbml.tree import Tree, add, scale


class MetaGradient(NamedTuple):
    """The outer loss and its derivative.

    Attributes:
        loss: the query loss, a scalar.
        grads: its derivative with respect to every meta-parameter, named as they are.
        aux: what ``inner.outer`` returned beside the loss.
        info: what the engine has to say for itself, by name (a residual, a count).
    """

    loss: Tensor
    grads: Tree
    aux: Tree
    info: Tree


class Hypergradient(Protocol):
    """How the derivative of the outer loss is taken: a choice of its own, blind to models, tasks and strategies."""

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Run the inner loop and return the outer loss and its derivative with respect to ``m``."""
        ...


def outer_gradient(inner: Inner, carry: Carry, m: Tree) -> tuple[Tensor, Tree, Carry, Tree]:
    """Return the outer loss, aux, and the cotangents of the last carry and of m."""
    seen = inner.entering(m, "outer")
    bars, (loss, aux) = func.grad_and_value(
        lambda last, meta: inner.outer(last, m | meta), argnums=(0, 1), has_aux=True
    )(carry, seen)
    carry_bar, m_bar = bars
    return loss, aux, carry_bar, m_bar


def refuse_blind(engine: str, blind: list[str], why: str, able: str) -> None:
    """Raise if there is a meta-parameter that an engine is blind to.

    Raises:
        BlindError: naming the meta-parameters and the engines that can.
    """
    if blind:
        raise BlindError(
            f"{engine} cannot see {', '.join(blind)}: {why}. Use {able}, or fix them with learn=False.", blind
        )


def directional_difference(inner: Inner, m: Tree, direction: Tree, step: float = 3e-4) -> Tensor:
    r"""Return the derivative of the outer loss along ``direction`` by a central difference of fourth order.

    .. math:: \frac{8\,(L(m + hd) - L(m - hd)) - (L(m + 2hd) - L(m - 2hd))}{12\,h}

    Exact to about ``step**4`` plus rounding over ``step``; only in float64 and on smooth functions (through ReLU it is
    meaningless: docs/facts.md).

    Args:
        inner: the problem.
        m: where.
        direction: names and shapes of m, or of a part of it.
        step: h.
    """

    def loss(factor: float) -> Tensor:
        moved = add(m, scale(direction, factor * step))
        value, _ = inner.outer(roll(inner, inner.start(moved), moved), moved)
        return value

    with torch.no_grad():
        return (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))) / (12 * step)
