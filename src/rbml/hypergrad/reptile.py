"""Reptile: the displacement of theta in the inner loop serves as the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import func

from rbml.hypergrad.base import MetaGradient, refuse_blind
from rbml.hypergrad.solve import above_zero
from rbml.inner import Inner, roll
from rbml.tree import Tree, scale, tmap


@dataclass(frozen=True)
class Reptile:
    r"""Move theta0 towards the adapted theta, without any derivative of the inner loop.

    .. math:: g = \mathrm{scale} \cdot (\theta_0 - \theta_T), \qquad \frac{dL}{d\theta_0} \approx
        \frac{d\theta_{start}}{d\theta_0}^T g

    Approximate: it is the gradient of :math:`\frac12 |\theta_0 - \theta_T|^2` with :math:`\theta_T` held constant, not
    that of the outer loss. With a single step it is the gradient of the mean support loss, which is joint training and
    not meta-learning. The factor :math:`d\theta_{start} / d\theta_0` is the identity unless a task starts from
    something made of theta0 (a head whose classes share one row). The returned loss is the outer loss, for information
    only: Reptile does not learn from queries, and the tasks of the paper have none.
    Source: Nichol et al. 2018 (arXiv:1803.02999). Memory: one step. Time: the inner loop alone.

    Scale: with 1, outer SGD with the rate ``epsilon`` is the paper's
    :math:`\theta_0 \leftarrow \theta_0 + \epsilon (\theta_T - \theta_0)`. With ``1 / (lr * T)`` the result has the size
    of the mean inner gradient of plain SGD, as the paper suggests for Adam (which does not depend on the scale). It is
    an option because an engine does not know the inner learning rate.

    It is blind to everything except theta0: to phi, and to parameters that a task does not adapt.

    Args:
        scale: the factor of the difference.

    Raises:
        UsageError: if ``scale`` is not above 0.
        BlindError: when called with a meta-parameter that it is blind to.
    """

    approximate: ClassVar[bool] = True

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the options."""
        above_zero("scale", self.scale)

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and, for theta0, the scaled difference between its start and its end."""
        ways = {name: inner.enters.get(name, frozenset({"start"})) for name in m}
        # A parameter that tasks do not adapt enters the outer loss directly (and perhaps the start, if the head is
        # computed from features). The displacement of theta says nothing about it.
        blind = [name for name, where in ways.items() if "start" not in where or "outer" in where]
        why = "it only moves theta0 towards the adapted theta"
        refuse_blind("Reptile", blind, why, "Adjoint or FirstOrder")
        start, pull, *_ = func.vjp(lambda meta: inner.start(meta).theta, m)
        carry = roll(inner, inner.start(m), m)
        loss, aux = inner.outer(carry, m)
        back = scale(tmap(lambda first, last: first - last, start, carry.theta), self.scale)
        return MetaGradient(loss, pull(back)[0], aux, {})
