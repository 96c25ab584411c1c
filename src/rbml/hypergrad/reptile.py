"""Where the inner loop went, taken for a gradient."""

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
    r"""Pull theta0 towards where the task took it: no derivative at all.

    .. math:: g = \mathrm{scale} \cdot (\theta_0 - \theta_T), \qquad \frac{dL}{d\theta_0} \approx
        \frac{d\theta_{start}}{d\theta_0}^T g

    Approximate: it is the gradient of :math:`\frac12 |\theta_0 - \theta_T|^2` with :math:`\theta_T` held, not of the
    outer loss, and with one step it is that of the mean support loss, which is no meta-learning. The second factor is
    the identity but where theta0 is not what a task starts from as it is (rows of a head shared by all classes). The
    loss is the outer loss, for the report: queries are not learned from, as in the paper, whose tasks have none.
    Source: Nichol et al. 2018 (arXiv:1803.02999). Memory: one step. Time: the inner loop alone.

    Scale: with 1 the outer SGD at rate ``epsilon`` is the paper's
    :math:`\theta_0 \leftarrow \theta_0 + \epsilon (\theta_T - \theta_0)`. With ``1 / (lr * T)`` it has the size of the
    mean inner gradient under plain SGD, as the paper suggests for Adam, which does not mind. An engine knows no inner
    rate, hence the number.

    It is blind to all but theta0: to phi, and to parameters that a task does not adapt.

    Args:
        scale: what the difference is multiplied by.

    Raises:
        UsageError: if ``scale`` is not above 0.
        BlindError: when called with a meta-parameter that it is blind to.
    """

    approximate: ClassVar[bool] = True

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a scale that means nothing."""
        above_zero("scale", self.scale)

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and, for theta0, the way back from where the loop ended."""
        ways = {name: inner.enters.get(name, frozenset({"start"})) for name in m}
        # What is shared by all tasks enters by the outer loss too, beside the start that a head is made by.
        blind = [name for name, where in ways.items() if "start" not in where or "outer" in where]
        why = "it moves theta0 towards the adapted theta, and nothing else"
        refuse_blind("Reptile", blind, why, "Adjoint or FirstOrder")
        start, pull, *_ = func.vjp(lambda meta: inner.start(meta).theta, m)
        carry = roll(inner, inner.start(m), m)
        loss, aux = inner.outer(carry, m)
        back = scale(tmap(lambda first, last: first - last, start, carry.theta), self.scale)
        return MetaGradient(loss, pull(back)[0], aux, {})
