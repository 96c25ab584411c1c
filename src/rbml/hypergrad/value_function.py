"""First-order bilevel optimization: the value function of the inner problem as a penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import func

from rbml.errors import UsageError
from rbml.hypergrad.base import MetaGradient, outer_gradient, refuse_blind
from rbml.hypergrad.implicit import blind_at_rest, refuse_no_steps
from rbml.hypergrad.solve import above_zero
from rbml.inner import Carry, Inner, roll
from rbml.tree import Tree, add, norm, scale, zeros_like


@dataclass(frozen=True)
class ValueFunction:
    r"""Replace the inner problem by a penalty on how far theta is from solving it, and use first derivatives alone.

    .. math:: \frac{dL}{dm} \approx \partial_m L(y) + \lambda \left(\partial_m f(y, m) - \partial_m f(z, m)\right),
        \qquad y \leftarrow y - \eta \left(\nabla f(y) + \tfrac1\lambda \nabla L(y)\right), \quad
        z \leftarrow z - \eta \nabla f(z)

    with the inner objective f, the outer loss L and the penalty :math:`\lambda`. Both y and z begin where the inner
    loop ends and take K steps: z goes on to solve the inner problem, y solves it while also lowering the outer loss.
    :math:`f(y) - \min_z f(z)` is the value-function gap, and the derivative is that of :math:`L + \lambda\, gap`.

    Approximate. At a minimum of f the difference of the two points is a Neumann series of K terms, without a second
    derivative: as the penalty grows the result tends, with an error proportional to 1 / penalty, to
    ``Implicit(Neumann(K - 1, rate))``, until rounding dominates (a penalty above 100 in float32, 1e5 in float64). Like
    that engine it assumes that the inner loop has converged: ``info["gap"]`` is the norm of the gradient of f at z, and
    ``info["moved"]`` the distance of y from z.

    Memory: one step. Time: the inner loop and 3 K + 3 gradients.
    Sources: F2SA, Kwon et al. 2023 (arXiv:2301.10945); BOME, Liu et al. 2022 (arXiv:2209.08709), which has the same
    difference of gradients, with a penalty that is chosen anew in every step so that the gap falls. Both papers change
    m and y together in one loop; here every call solves for y again, so that the engine has no memory.

    It is blind to meta-parameters that do not enter the objective or the outer loss: the numbers of rules, and theta0
    unless the objective contains a pull towards it.

    Args:
        penalty: the multiplier of the gap.
        iterations: K, the steps of y and z.
        rate: of these steps, below 2 divided by the largest curvature of f.

    Raises:
        UsageError: if an option is not above 0, or for a loop without steps.
        BlindError: when called with a meta-parameter that it is blind to.
    """

    approximate: ClassVar[bool] = True

    penalty: float = 30.0
    iterations: int = 20
    rate: float = 0.1

    def __post_init__(self) -> None:
        """Check the options."""
        above_zero("penalty", self.penalty)
        above_zero("rate", self.rate)
        if self.iterations < 1:
            raise UsageError(f"iterations, the steps of the two points, must be at least 1, not {self.iterations}")

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and its approximate derivative with respect to ``m``."""
        refuse_no_steps("ValueFunction", inner)
        why = "it uses only the inner objective at the end, which does not depend on the start or the numbers of rules"
        refuse_blind("ValueFunction", blind_at_rest(inner, m), why, "Adjoint, Unrolled or FirstOrder")
        last = inner.steps - 1
        carry = roll(inner, inner.start(m), m)
        loss, aux = inner.outer(carry, m)
        pull = func.grad(lambda theta: inner.objective(theta, m, last))
        goal = func.grad(lambda theta: inner.outer(Carry(theta, carry.state), m)[0])
        y = z = carry.theta
        for _ in range(self.iterations):
            y = add(y, scale(add(pull(y), scale(goal(y), 1 / self.penalty)), -self.rate))
            z = add(z, scale(pull(z), -self.rate))
        _, _, _, m_bar = outer_gradient(inner, Carry(y, carry.state), m)
        seen = inner.entering(m, "objective")

        def direct(theta: Tree, factor: float) -> Tree:
            return scale(func.grad(lambda meta: inner.objective(theta, m | meta, last))(seen), factor)

        gap = add(direct(y, self.penalty), direct(z, -self.penalty)) if seen else {}
        info = {"gap": norm(pull(z)), "moved": norm(add(y, scale(z, -1.0)))}
        return MetaGradient(loss.detach(), add(add(zeros_like(m), m_bar), gap), aux, info)
