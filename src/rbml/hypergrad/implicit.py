"""Implicit differentiation: what the end of the inner loop is, whatever the way there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import func

from rbml.autodiff.products import Mode, grad_product
from rbml.errors import UsageError, unknown
from rbml.hypergrad.base import MetaGradient, outer_gradient, refuse_blind
from rbml.hypergrad.solve import ConjugateGradient, Product, Solver, solve
from rbml.inner import Carry, Inner, roll, step
from rbml.tree import Tree, add, matching, norm, prefixed, scale, tmap, under, zeros_like

Condition = Literal["objective", "step"]


@dataclass(frozen=True)
class Implicit:
    r"""Take the end of the inner loop for a root of a condition F, and differentiate that.

    .. math:: F(z, m) = 0 \;\Rightarrow\; \frac{dL}{dm} = \partial_m L - x^T \partial_m F, \qquad
        (\partial_z F + \mathrm{damping}\, I)^T x = \partial_z L

    =============  ===========================================  =====================================================
    ``at``         F                                            for
    =============  ===========================================  =====================================================
    ``objective``  the gradient of the objective at theta_T     any rule that comes to rest where the gradient is
                                                                zero; symmetric
    ``step``       the carry less what the last step makes of   rules that come to rest elsewhere (weight decay
                   it: z is theta and the rules' state          apart from the objective); not symmetric
    =============  ===========================================  =====================================================

    Approximate, and exact in the limit: as far as the loop has converged (``info["gap"]`` is :math:`|F|`) and the
    solver too (``info["residual"]``, relative; ``info["iterations"]``). Memory: one step, whatever T is, and the
    solver's vectors. Time: the loop without a derivative, and a second derivative a solver's product. On an unconverged
    run F has no root here, its derivative may have negative eigenvalues, and the numbers mean little: look at them.

    With ``at="objective"`` the outer loss must be a function of theta alone, not of the rules' state:
    ``info["ignored"]`` is the norm of its derivative by the state, which is left out (a learner's ``step_weights`` make
    it 1). A condition that changes from step to step, such as a schedule, is taken as at the last step.

    It is blind to what cannot move the root: theta0, unless the objective has a pull towards it (a proximal term), and
    the numbers of the rules, but for those that ``moves`` names.

    Sources: Bengio 2000; iMAML, Rajeswaran et al. 2019 (arXiv:1909.04630); Lorraine et al. 2020 (arXiv:1911.02590); the
    form with F: Blondel et al. 2022 (arXiv:2105.15183).

    Args:
        solver: of the linear system, from :mod:`rbml.hypergrad.solve`: with ``at="objective"`` all will do,
            with ``at="step"`` ``NormalEquations``, ``GMRES``, or ``Neumann(rate=1.0)``.
        at: the condition.
        damping: added to the diagonal; iMAML's regularisation, and a remedy where F has no single root.
        moves: with ``at="step"``, a pattern of the meta-parameters of rules that move the fixed point, such as
            ``"phi.weight_decay.*"``. A learning rate does not, and would get what is left of it on an unconverged run.
        hvp: as in :class:`rbml.hypergrad.Adjoint`; of ``at="objective"`` alone.

    Raises:
        UsageError: for an unknown name, a negative damping, an option that the condition has no use for, or a loop
            without steps.
        BlindError: when called with a meta-parameter that it is blind to.
    """

    approximate: ClassVar[bool] = True

    solver: Solver = field(default_factory=ConjugateGradient)
    at: Condition = "objective"
    damping: float = 0.0
    moves: str = ""
    hvp: Mode = "forward"

    def __post_init__(self) -> None:
        """Refuse names and numbers that mean nothing."""
        if self.at not in get_args(Condition):
            raise unknown("condition", self.at, get_args(Condition))
        if self.hvp not in get_args(Mode):
            raise unknown("hvp mode", self.hvp, get_args(Mode))
        if not self.damping >= 0:
            raise UsageError(f"damping must be at least 0, not {self.damping}")
        if self.moves and self.at != "step":
            raise UsageError('moves= names what moves the fixed point of a step: it needs at="step"')
        if self.hvp != "forward" and self.at == "step":
            raise UsageError(f'hvp="{self.hvp}" is for at="objective": a step is pulled back as it is')

    def __call__(self, inner: Inner, m: Tree, warm: Tree | None = None) -> MetaGradient:
        """Return the outer loss and its derivative with respect to ``m``.

        Args:
            inner: the problem.
            m: the meta-parameters.
            warm: where the solver begins: what ``under(result.info, "solution.")`` was at the last call, or ``{}`` at
                the first one. Given, the solution is in ``info``; without it the solver begins at zero.
        """
        refuse_no_steps("Implicit", inner)
        self._refuse(inner, m)
        carry = roll(inner, inner.start(m), m)
        loss, aux, bar, m_bar = outer_gradient(inner, carry, m)
        root = _stationary(inner, carry, m, bar, self.hvp) if self.at == "objective" else _fixed(inner, carry, m, bar)

        def damped(product: Product) -> Product:
            return product if not self.damping else lambda x: add(product(x), scale(x, self.damping))

        x, residual, iterations = solve(self.solver, damped(root.pull), damped(root.push), root.right, warm or None)
        grads = add(add(zeros_like(m), m_bar), scale(root.pull_m(x), -1))
        info = root.info | {"residual": residual, "iterations": iterations}
        return MetaGradient(loss, grads, aux, info if warm is None else info | prefixed(x, "solution."))

    def _refuse(self, inner: Inner, m: Tree) -> None:
        moving = matching(m, self.moves) if self.moves else []
        blind = blind_at_rest(inner, [name for name in m if name not in moving])
        why = "they move no root, for they enter by the start or the rules alone"
        able = "Adjoint, Unrolled or Forward, or give theta0 a proximal term"
        refuse_blind("Implicit", blind, why, able)


class _Root(NamedTuple):
    """The derivatives of F where the loop has ended.

    Attributes:
        right: the derivative of the outer loss by z.
        pull: ``x -> (dF/dz)^T x``.
        push: ``x -> dF/dz x``.
        pull_m: ``x -> (dF/dm)^T x``.
        info: how far the end is from a root, and what of the outer loss is left out.
    """

    right: Tree
    pull: Product
    push: Product
    pull_m: Product
    info: Tree


def _stationary(inner: Inner, carry: Carry, m: Tree, bar: Carry, hvp: Mode) -> _Root:
    """F is the gradient of the objective; its derivative by theta is the Hessian."""
    last, seen = inner.steps - 1, inner.entering(m, "objective")

    def product(x: Tree, meta: Tree) -> tuple[Tree, Tree]:
        return grad_product(lambda theta, part: inner.objective(theta, m | part, last), carry.theta, meta, x, hvp)

    def hessian(x: Tree) -> Tree:
        return product(x, {})[0]

    gap = norm(func.grad(inner.objective)(carry.theta, m, last))
    ignored = norm(bar.state) if bar.state else torch.zeros_like(gap)
    info = {"gap": gap, "ignored": ignored}
    return _Root(bar.theta, hessian, hessian, lambda x: product(x, seen)[1], info)


def _fixed(inner: Inner, carry: Carry, m: Tree, bar: Carry) -> _Root:
    """F is the carry less what the last step would make of it."""
    z = {name: leaf.contiguous() for name, leaf in _packed(carry).items()}  # no tangent fits an expanded tensor

    def left(z: Tree, meta: Tree) -> Tree:
        _, after = step(inner, Carry(under(z, "theta."), under(z, "state.")), meta, inner.steps - 1)
        return tmap(torch.sub, z, _packed(after))

    gap, pull, *_ = func.vjp(left, z, m)  # the graph of one step, used for every product

    def push(x: Tree) -> Tree:
        along: Tree = func.jvp(lambda z: left(z, m), (z,), (x,))[1]
        return along

    info = {"gap": norm(gap)}
    return _Root(_packed(bar), lambda x: pull(x)[0], push, lambda x: pull(x)[1], info)


def _packed(carry: Carry) -> Tree:
    return prefixed(carry.theta, "theta.") | prefixed(carry.state, "state.")


def blind_at_rest(inner: Inner, names: Iterable[str]) -> list[str]:
    """Return the meta-parameters that enter by the start or the rules alone: they do not say where a loop rests."""
    return [name for name in names if inner.enters.get(name, frozenset({"objective"})) <= {"start", "update"}]


def refuse_no_steps(engine: str, inner: Inner) -> None:
    """Refuse a loop that goes nowhere.

    Raises:
        UsageError: if there is no step.
    """
    if not inner.steps:
        raise UsageError(f"{engine} needs an inner loop that comes to rest, and this one takes no step: set steps=")
