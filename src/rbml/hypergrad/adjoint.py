"""The adjoint sweep that gives rbml its name: walk the carries backwards, one small graph a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import func

from rbml.autodiff import Mode, grad_product
from rbml.errors import unknown
from rbml.hypergrad.base import MetaGradient, outer_gradient
from rbml.hypergrad.unrolled import check_window, first_seen
from rbml.inner import Carry, Inner, step
from rbml.tree import Tree, add, zeros_like

Store = Literal["all"]


@dataclass(frozen=True)
class Adjoint:
    r"""Keep the carries, then sweep backwards; at each step

    1. pull the cotangent of :math:`c_{t+1}` back through ``update`` to the carry, to m and to the inner gradient: v;
    2. differentiate :math:`\langle \nabla_\theta\, objective(\theta_t, m), v \rangle` with respect to theta and m, by
       one forward-over-reverse pass.

    Exact. Memory: T carries and T inner gradients, no activations. Time: close to ``Unrolled``. It is blind to nothing.
    Source: MixFlow-MG (Kemaev et al. 2025, arXiv:2505.00793); Franceschi et al. 2017 (arXiv:1703.01785).

    Args:
        store: ``"all"`` keeps every carry.
        hvp: ``"forward"`` over reverse, or ``"reverse"`` over reverse for a model with operators that have no forward
            derivative (docs/facts.md lists them).
        window: as in :class:`rbml.hypergrad.Unrolled`.

    Raises:
        UsageError: for an unknown ``store`` or ``hvp``, or a negative ``window``.
    """  # noqa: D415  the list is the sentence

    store: Store = "all"
    hvp: Mode = "forward"
    window: int | None = None

    def __post_init__(self) -> None:
        """Refuse names that do not exist."""
        if self.store not in get_args(Store):
            raise unknown("store", self.store, get_args(Store))
        if self.hvp not in get_args(Mode):
            raise unknown("hvp mode", self.hvp, get_args(Mode))
        check_window(self.window)

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and its derivative with respect to ``m``."""
        return sweep(inner, m, first_seen(inner.steps, self.window), self.hvp)


def sweep(inner: Inner, m: Tree, first: int, hvp: Mode | None) -> MetaGradient:
    """Roll forward, then sweep back from the last step to step ``first``; earlier steps count as the identity.

    Args:
        inner: the problem.
        m: the meta-parameters.
        first: the first step that is differentiated.
        hvp: how part 2 of a step is taken; ``None`` leaves it out: the inner gradients count as constants.
    """
    trail: list[tuple[Tree, Carry]] = []
    carry = inner.start(m)
    for t in range(inner.steps):
        before = carry
        grads, carry = step(inner, before, m, t)
        if t >= first:
            trail.append((grads, before))

    loss, aux, bar, m_bar = outer_gradient(inner, carry, m)
    m_bar = add(zeros_like(m), m_bar)
    for t in reversed(range(first, inner.steps)):
        grads, carry = trail.pop()
        v, bar, m_update = _pull_update(inner, grads, carry, m, t, bar)
        m_bar = add(m_bar, m_update)
        if hvp is not None:
            along_theta, along_m = _pull_gradient(inner, carry.theta, m, t, v, hvp)
            bar = Carry(add(bar.theta, along_theta), bar.state)
            m_bar = add(m_bar, along_m)
    pull = func.vjp(lambda meta: inner.start(m | meta), inner.entering(m, "start"))[1]
    return MetaGradient(loss, add(m_bar, pull(bar)[0]), aux, {})


def _pull_update(inner: Inner, grads: Tree, carry: Carry, m: Tree, t: int, bar: Carry) -> tuple[Tree, Carry, Tree]:
    """Pull the cotangent of the next carry back to the gradient, the carry and m."""
    seen = inner.entering(m, "update")
    pull = func.vjp(lambda g, c, meta: inner.update(g, c, m | meta, t), grads, carry, seen)[1]
    v, carry_bar, m_bar = pull(bar)
    return v, carry_bar, m_bar


def _pull_gradient(inner: Inner, theta: Tree, m: Tree, t: int, v: Tree, hvp: Mode) -> tuple[Tree, Tree]:
    """Pull v back through the inner gradient, to theta and m."""
    seen = inner.entering(m, "objective")
    return grad_product(lambda point, meta: inner.objective(point, m | meta, t), theta, seen, v, hvp)
