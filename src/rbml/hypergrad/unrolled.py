"""Backpropagation through the whole inner loop: the reference."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rbml.autodiff.alone import gradient_and_value
from rbml.errors import UsageError
from rbml.hypergrad.base import MetaGradient
from rbml.inner import Carry, Inner, roll
from rbml.tree import Tree, detach, tmap


@dataclass(frozen=True)
class Unrolled:
    r"""Differentiate the outer loss through every step, as one graph.

    .. math:: \frac{dL}{dm} = \partial_m L + \partial_c L \cdot \frac{dc_T}{dm}, \qquad c_{t+1} = \Phi(c_t, m, t)

    Exact, and blind to no meta-parameter. Memory: all activations of all steps. Time: about one inner loop and its
    backward pass.
    Source: Maclaurin et al. 2015 (arXiv:1502.03492); Finn et al. 2017 (arXiv:1703.03400).

    Args:
        window: differentiate only the last ``window`` steps and treat the earlier ones as the identity: the derivative
            with respect to the carry passes through them unchanged to the start. Approximate (Shaban et al. 2019,
            arXiv:1810.10667), with memory for ``window`` steps; ``window=1`` is T1-T2 (Luketina et al. 2016,
            arXiv:1511.06727). ``None``, or a value of at least T, is exact.

    Raises:
        UsageError: if ``window`` is negative.
    """

    window: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        check_window(self.window)

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and its derivative with respect to ``m``."""
        first = first_seen(inner.steps, self.window)
        early = detached(roll(inner, inner.start(m), m, stop=first)) if first else None

        def loss(meta: Tree) -> tuple[Tensor, Tree]:
            carry = inner.start(meta)
            carry = carry if early is None else straight_through(early, carry)
            return inner.outer(roll(inner, carry, meta, start=first), meta)

        grads, (value, aux) = gradient_and_value(loss, m)
        return MetaGradient(value, grads, aux, {})


def check_window(window: int | None) -> None:
    """Check that a window is not negative.

    Raises:
        UsageError: if it is.
    """
    if window is not None and window < 0:
        raise UsageError(f"window, the number of last steps to differentiate, must be at least 0, not {window}")


def first_seen(steps: int, window: int | None) -> int:
    """Return the first step that is differentiated."""
    return 0 if window is None else max(steps - window, 0)


def detached(carry: Carry) -> Carry:
    """Return the same values, detached from the graph."""
    return Carry(detach(carry.theta), detach(carry.state))


def straight_through(values: Carry, path: Carry) -> Carry:
    """Return ``values`` with the derivative of ``path``."""

    def join(value: Tree, way: Tree) -> Tree:
        return tmap(lambda v, w: v + (w - w.detach()), value, way)  # w - w.detach() is 0, with the derivative of w

    return Carry(join(values.theta, path.theta), join(values.state, path.state))
