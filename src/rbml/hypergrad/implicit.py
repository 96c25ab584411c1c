"""Implicit differentiation: the derivative of the point where the inner loop ends, independent of the path to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import func

from rbml.autodiff.products import Mode, grad_product
from rbml.autodiff.threads import forward_derivative
from rbml.errors import UsageError, unknown
from rbml.hypergrad.base import MetaGradient, outer_gradient, refuse_blind
from rbml.hypergrad.solve import ConjugateGradient, Product, Solver, solve
from rbml.inner import Carry, Inner, roll, step
from rbml.tree import Tree, add, matching, norm, prefixed, scale, tmap, under, zeros_like

Condition = Literal["objective", "step"]


@dataclass(frozen=True)
class Implicit:
    r"""Treat the end of the inner loop as a root of a condition F and differentiate that root.

    .. math:: F(z, m) = 0 \;\Rightarrow\; \frac{dL}{dm} = \partial_m L - x^T \partial_m F, \qquad
        (\partial_z F + \mathrm{damping}\, I)^T x = \partial_z L

    =============  ===========================================  =====================================================
    ``at``         F                                            for
    =============  ===========================================  =====================================================
    ``objective``  the gradient of the objective at theta_T     rules that converge to a point where the gradient is
                                                                zero; symmetric
    ``step``       the carry minus the result of the last step  rules that converge elsewhere (weight decay outside
                   applied to it: z is theta and the state of   the objective); not symmetric
                   the rules
    =============  ===========================================  =====================================================

    Approximate. It becomes exact as the inner loop converges (``info["gap"]`` is :math:`|F|`) and the solver does
    (``info["residual"]``, relative; ``info["iterations"]``). Memory: one step, whatever T is, and the vectors of the
    solver. Time: the inner loop without derivatives, and one second derivative per product of the solver. If the loop
    has not converged, its end is not a root of F, the derivative of F may have negative eigenvalues, and the result
    means little: check ``gap`` and ``residual``.

    With ``at="objective"`` the outer loss must depend on theta alone and not on the state of the rules:
    ``info["ignored"]`` is the norm of its derivative with respect to the state, which is left out (with a learner's
    ``step_weights`` it is 1). A condition that changes from step to step, such as a schedule, is used as at the last
    step.

    It is blind to whatever cannot move the root: theta0, unless the objective contains a pull towards it (a proximal
    term), and the numbers of the rules, except those named by ``moves``.

    Sources: Bengio 2000; iMAML, Rajeswaran et al. 2019 (arXiv:1909.04630); Lorraine et al. 2020 (arXiv:1911.02590); the
    general form with F: Blondel et al. 2022 (arXiv:2105.15183).

    Args:
        solver: the solver of the linear system, from :mod:`rbml.hypergrad.solve`: any of them with
            ``at="objective"``; ``NormalEquations``, ``GMRES`` or ``Neumann(rate=1.0)`` with ``at="step"``.
        at: the condition F.
        damping: added to the diagonal; the regularisation of iMAML, and a remedy if the root of F is not unique.
        moves: with ``at="step"``, a pattern of those meta-parameters of rules that move the fixed point, such as
            ``"phi.weight_decay.*"``. A learning rate does not move it; its derivative would be an artefact of
            incomplete convergence.
        hvp: as in :class:`rbml.hypergrad.Adjoint`; only with ``at="objective"``.

    Raises:
        UsageError: for an unknown name, a negative damping, an option that does not apply to the condition, or, when
            called, a loop without steps.
        BlindError: when called with a meta-parameter that it is blind to.
    """

    approximate: ClassVar[bool] = True

    solver: Solver = field(default_factory=ConjugateGradient)
    at: Condition = "objective"
    damping: float = 0.0
    moves: str = ""
    hvp: Mode = "forward"

    def __post_init__(self) -> None:
        """Check the options."""
        if self.at not in get_args(Condition):
            raise unknown("condition", self.at, get_args(Condition))
        if self.hvp not in get_args(Mode):
            raise unknown("hvp mode", self.hvp, get_args(Mode))
        if not self.damping >= 0:
            raise UsageError(f"damping must be at least 0, not {self.damping}")
        if self.moves and self.at != "step":
            raise UsageError('moves= names meta-parameters that move the fixed point of a step: it needs at="step"')
        if self.hvp != "forward" and self.at == "step":
            raise UsageError(
                f'hvp="{self.hvp}" applies only to at="objective": with at="step" leave hvp= at its default'
            )

    def __call__(self, inner: Inner, m: Tree, warm: Tree | None = None) -> MetaGradient:
        """Return the outer loss and its derivative with respect to ``m``.

        Args:
            inner: the problem.
            m: the meta-parameters.
            warm: the initial guess of the solver: ``under(result.info, "solution.")`` of the last call, or ``{}`` at
                the first. If it is given, ``info`` contains the solution; without it the solver starts at zero.

        Raises:
            UsageError: if the inner loop has no step.
            BlindError: if it is blind to one of the meta-parameters.
        """
        refuse_no_steps("Implicit", inner)
        self._refuse(inner, m)
        carry = roll(inner, inner.start(m), m)
        loss, aux, bar, m_bar = outer_gradient(inner, carry, m)
        root = (
            _at_stationary_point(inner, carry, m, bar, self.hvp)
            if self.at == "objective"
            else _at_fixed_point(inner, carry, m, bar)
        )

        def damped(product: Product) -> Product:
            return product if not self.damping else lambda x: add(product(x), scale(x, self.damping))

        x, residual, iterations = solve(self.solver, damped(root.pull), damped(root.push), root.right, warm or None)
        # L depends on m directly (m_bar) and through the root, whose derivative is -(dF/dz)^-1 dF/dm. zeros_like(m)
        # gives every meta-parameter an entry, also one that neither term depends on.
        grads = add(add(zeros_like(m), m_bar), scale(root.pull_m(x), -1))
        info = root.info | {"residual": residual, "iterations": iterations}
        return MetaGradient(loss, grads, aux, info if warm is None else info | prefixed(x, "solution."))

    def _refuse(self, inner: Inner, m: Tree) -> None:
        # A number of a rule may or may not move the fixed point, and functions alone cannot tell: the caller names it.
        moving = matching(m, self.moves) if self.moves else []
        blind = blind_at_rest(inner, [name for name in m if name not in moving])
        why = "they enter only through the start or the rules and do not move the point of convergence"
        able = "Adjoint, Unrolled or Forward, or give theta0 a proximal term"
        refuse_blind("Implicit", blind, why, able)


class _Root(NamedTuple):
    """The derivatives of F at the end of the loop.

    Attributes:
        right: the derivative of the outer loss with respect to z.
        pull: ``x -> (dF/dz)^T x``.
        push: ``x -> dF/dz x``.
        pull_m: ``x -> (dF/dm)^T x``.
        info: the distance from a root, and how much of the outer loss is left out.
    """

    right: Tree
    pull: Product
    push: Product
    pull_m: Product
    info: Tree


def _at_stationary_point(inner: Inner, carry: Carry, m: Tree, bar: Carry, hvp: Mode) -> _Root:
    """Return the derivatives if F is the gradient of the objective; dF/dz is then the Hessian."""
    # Only what enters the objective has a derivative here; differentiating by the rest of m would cost time for zeros.
    last, seen = inner.steps - 1, inner.entering(m, "objective")

    def product(x: Tree, meta: Tree) -> tuple[Tree, Tree]:
        return grad_product(lambda theta, part: inner.objective(theta, m | part, last), carry.theta, meta, x, hvp)

    def hessian(x: Tree) -> Tree:
        return product(x, {})[0]

    gap = norm(func.grad(inner.objective)(carry.theta, m, last))
    ignored = norm(bar.state) if bar.state else torch.zeros_like(gap)
    info = {"gap": gap, "ignored": ignored}
    # The Hessian is symmetric, so `pull` and `push` are the same product.
    return _Root(bar.theta, hessian, hessian, lambda x: product(x, seen)[1], info)


def _at_fixed_point(inner: Inner, carry: Carry, m: Tree, bar: Carry) -> _Root:
    """Return the derivatives if F is the carry minus the result of one more step from it."""
    # Contiguous, because forward AD cannot give an expanded tensor a tangent.
    z = {name: leaf.contiguous() for name, leaf in _as_tree(carry).items()}

    def left(z: Tree, meta: Tree) -> Tree:
        _, after = step(inner, Carry(under(z, "theta."), under(z, "state.")), meta, inner.steps - 1)
        return tmap(torch.sub, z, _as_tree(after))

    gap, pull, *_ = func.vjp(left, z, m)  # the graph of one step is built once and serves every product

    def push(x: Tree) -> Tree:
        along: Tree = forward_derivative(lambda z: left(z, m), (z,), (x,))[1]
        return along

    info = {"gap": norm(gap)}
    return _Root(_as_tree(bar), lambda x: pull(x)[0], push, lambda x: pull(x)[1], info)


def _as_tree(carry: Carry) -> Tree:
    # The prefixes keep apart a parameter and a state of the same name.
    return prefixed(carry.theta, "theta.") | prefixed(carry.state, "state.")


def blind_at_rest(inner: Inner, names: Iterable[str]) -> list[str]:
    """Return the meta-parameters that enter only through the start or the rules: they do not move the fixed point."""
    return [name for name in names if inner.enters.get(name, frozenset({"objective"})) <= {"start", "update"}]


def refuse_no_steps(engine: str, inner: Inner) -> None:
    """Check that the inner loop has steps.

    Raises:
        UsageError: if it has none.
    """
    if not inner.steps:
        raise UsageError(f"{engine} needs an inner loop that converges, but this one has no steps: set steps=")
