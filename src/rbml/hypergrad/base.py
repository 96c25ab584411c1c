"""The interface of hypergradient engines, their result, and the central difference that tests check them against."""

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
        grads: its derivative with respect to every meta-parameter, with the names of m.
        aux: what ``inner.outer`` returned in addition to the loss.
        info: diagnostics of the engine by name, such as a residual or a count.
    """

    loss: Tensor
    grads: Tree
    aux: Tree
    info: Tree


class Hypergradient(Protocol):
    """A method for the derivative of the outer loss, independent of models, tasks and strategies."""

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Run the inner loop and return the outer loss and its derivative with respect to ``m``."""
        ...


def outer_gradient(inner: Inner, carry: Carry, m: Tree) -> tuple[Tensor, Tree, Carry, Tree]:
    """Return the outer loss, aux, and the derivatives of the loss with respect to the last carry and to m."""
    # Only the meta-parameters that enter the outer loss directly are differentiated; for the others it would be zeros.
    seen = inner.entering(m, "outer")
    bars, (loss, aux) = func.grad_and_value(
        lambda last, meta: inner.outer(last, m | meta), argnums=(0, 1), has_aux=True
    )(carry, seen)
    carry_bar, m_bar = bars
    return loss, aux, carry_bar, m_bar


def refuse_blind(engine: str, blind: list[str], why: str, able: str) -> None:
    """Raise if there are meta-parameters that an engine is blind to.

    Args:
        engine: the name of the engine.
        blind: the names of the meta-parameters that it cannot differentiate with respect to.
        why: the reason.
        able: the engines that can.

    Raises:
        BlindError: if ``blind`` is not empty.
    """
    if blind:
        raise BlindError(
            f"{engine} is blind to {', '.join(blind)}: {why}. Use {able}, or fix them with learn=False.", blind
        )


def directional_difference(inner: Inner, m: Tree, direction: Tree, step: float = 3e-4) -> Tensor:
    r"""Return the derivative of the outer loss along ``direction`` by a fourth-order central difference.

    .. math:: \frac{8\,(L(m + hd) - L(m - hd)) - (L(m + 2hd) - L(m - 2hd))}{12\,h}

    The error is about ``step**4`` plus the rounding error divided by ``step``. Use it in float64 and for smooth
    functions only; for ReLU networks the result is meaningless (docs/facts.md).

    Args:
        inner: the problem.
        m: the meta-parameters at which the derivative is taken.
        direction: a tree with the names and shapes of m or of a part of it.
        step: the distance h.
    """

    def loss(factor: float) -> Tensor:
        moved = add(m, scale(direction, factor * step))
        value, _ = inner.outer(roll(inner, inner.start(moved), moved), moved)
        return value

    with torch.no_grad():
        return (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))) / (12 * step)
