"""SAMA: implicit differentiation with the identity as base Jacobian and a difference as second derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import func

from rbml.hypergrad.base import MetaGradient, outer_gradient, refuse_blind
from rbml.hypergrad.implicit import blind_at_rest, refuse_no_steps
from rbml.hypergrad.solve import above_zero
from rbml.inner import Inner, roll
from rbml.tree import Tree, add, norm, scale, zeros_like


@dataclass(frozen=True)
class Sama:
    r"""Approximate implicit differentiation by first derivatives alone (SAMA).

    .. math:: v = \Bigl(\frac{\partial\, update}{\partial g}\Bigr)^T \partial_\theta L, \qquad
        \frac{dL}{dm} \approx \partial_m L + \frac{\partial_m f(\theta_T + \epsilon v, m) -
        \partial_m f(\theta_T - \epsilon v, m)}{2 \epsilon}, \qquad \epsilon = \frac{\alpha}{|v|}

    with the inner objective f and its gradient g. It is implicit differentiation of the fixed point of the rules with
    three approximations. The inverse of the base Jacobian is replaced by the identity. Of the rules only their
    derivative with respect to the gradient remains, so that an adaptive rule scales v as it scales a step ("algorithmic
    adaptation"; here ``update`` is differentiated, while the paper derives the formula for Adam). The mixed derivative
    is a central difference.

    Approximate: the direction is useful but its size hardly is, because only the last step counts. No operator needs a
    second derivative.

    DARTS (Liu et al. 2019, arXiv:1806.09055) is closely related: it differentiates the last step itself, which is
    ``Adjoint(window=1, hvp="difference")``; here the derivatives are taken at the end, after one more gradient.

    Memory: one step. Time: the inner loop and four gradients.
    Source: Choe et al. 2023 (arXiv:2310.05674). In the paper it runs during an ongoing training, with the next batch
    and the current state of the optimizer; here it is applied at the end of the loop, with the objective of the last
    step.

    It is blind to meta-parameters that do not enter the objective or the outer loss: the numbers of rules, and theta0
    unless the objective contains a pull towards it.

    Args:
        alpha: the length of the displacement of theta for the difference. The error decreases with its square until
            rounding dominates, which is about 1e-7 / alpha in float32.

    Raises:
        UsageError: if ``alpha`` is not above 0, or for a loop without steps.
        BlindError: when called with a meta-parameter that it is blind to.
    """

    approximate: ClassVar[bool] = True

    alpha: float = 0.01

    def __post_init__(self) -> None:
        """Check the options."""
        above_zero("alpha", self.alpha)

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and its approximate derivative with respect to ``m``."""
        refuse_no_steps("Sama", inner)
        why = "it uses only the inner objective at the end, which does not depend on the start or the numbers of rules"
        refuse_blind("Sama", blind_at_rest(inner, m), why, "Adjoint, Unrolled or FirstOrder")
        last = inner.steps - 1
        carry = roll(inner, inner.start(m), m)
        loss, aux, bar, m_bar = outer_gradient(inner, carry, m)
        grads = func.grad(inner.objective)(carry.theta, m, last)
        # "Algorithmic adaptation": an adaptive rule scales v as it would scale a gradient.
        pull = func.vjp(lambda g: inner.update(g, carry, m, last), grads)[1]
        v = pull(bar)[0]

        size = norm(v)
        by = self.alpha / torch.where(size > 0, size, 1)  # epsilon; with v = 0 any finite value gives the result 0
        seen = inner.entering(m, "objective")

        def mixed(sign: float) -> Tree:
            theta = add(carry.theta, scale(v, sign * by))
            return scale(func.grad(lambda meta: inner.objective(theta, m | meta, last))(seen), sign / (2 * by))

        difference = add(mixed(1.0), mixed(-1.0)) if seen else {}
        return MetaGradient(loss, add(add(zeros_like(m), m_bar), difference), aux, {"moved": size * by})
