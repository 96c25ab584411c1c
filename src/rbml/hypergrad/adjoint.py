"""The adjoint sweep: go back through the carries with one small graph per step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from torch import Tensor, func

from rbml.autodiff.products import Mode, grad_product
from rbml.errors import UsageError, unknown
from rbml.hypergrad.base import MetaGradient, outer_gradient
from rbml.hypergrad.reverse import exactly, plainly
from rbml.hypergrad.trajectory import Store, everything, segments
from rbml.hypergrad.unrolled import check_window, first_seen
from rbml.inner import Carry, Inner, taken
from rbml.tree import Step, Tree, add, zeros_like

Stores = Literal["all", "segments", "reverse"]


@dataclass(frozen=True)
class Adjoint:
    r"""Keep the carries, then sweep backwards with one small graph per step.

    At each step

    1. pull the cotangent of :math:`c_{t+1}` back through ``update`` to the carry, to m and to the inner gradient: v;
    2. differentiate :math:`\langle \nabla_\theta\, objective(\theta_t, m), v \rangle` with respect to theta and m, by
       one forward-over-reverse pass.

    The last steps may keep the graph of their gradient from the way forward instead: for them part 2 is a pass
    backwards through it, without taking the gradient again. With all T steps that is :class:`rbml.hypergrad.Unrolled`.

    Exact. It is blind to nothing. Memory, besides the graphs of ``keep`` steps or the activations of one, and time:

    ==========================  =========================================  =====================================
    store                       Memory                                     Time
    ==========================  =========================================  =====================================
    ``"all"``                   T carries and T inner gradients            close to ``Unrolled``
    ``"segments"``              about :math:`2\sqrt T` carries,            one more gradient per step
                                :math:`\sqrt T` gradients
    ``"reverse"``               two carries                                one more gradient per step
    ``"reverse", exact=True``   three carries in 64 bits and the buffer    the same, and whole-number arithmetic
    ==========================  =========================================  =====================================

    ``"reverse"`` walks back by undoing the steps, which a chain with one momentum can, without Nesterov: weight decay
    and other rules without memory may stand before it, a learning rate and schedules after it. In plain arithmetic the
    recovered carries drift from the true ones: ``info["drift"]`` is the relative distance where the walk ends (momentum
    0.9: 2e-4 after 100 steps in float32, 4e-13 in float64), and the derivative is no better.

    With ``exact=True`` the run itself is made in fixed point, 52 binary digits after the point, its decay a fraction of
    whole numbers (a fixed one as it is, a learned one to 2**-16), and every bit comes back. It is the derivative
    of that run, with that of rounding taken as zero. ``info`` has ``wrong``, how many numbers did not come back (0,
    unless the model's gradient differs when it is taken twice), ``bits``, the size of the buffer per value and step
    (about log2(1 / decay), for a learned decay at its lower bound, and 64 at the end), and ``largest``, the largest
    number that had to fit: below 2048.

    Sources: MixFlow-MG (Kemaev et al. 2025, arXiv:2505.00793); Franceschi et al. 2017 (arXiv:1703.01785); Maclaurin,
    Duvenaud, Adams 2015 (arXiv:1502.03492, Algorithm 3) for ``"reverse"``. There the buffer is put aside when a value
    needs it; here when the least decay would, so that nothing depends on the data and tasks can be vectorised.

    Args:
        store: see above.
        hvp: ``"forward"`` over reverse, or ``"reverse"`` over reverse for a model with operators that have no forward
            derivative (docs/facts.md lists them), or ``"difference"``: a central difference of two inner gradients
            along v. That is approximate; with ``window=1`` it is DARTS (Liu et al. 2019, arXiv:1806.09055).
        window: as in :class:`rbml.hypergrad.Unrolled`; earlier steps take no memory.
        exact: with ``store="reverse"``: whether the steps are undone bit for bit.
        keep: how many steps keep their graph: of the whole run, or, with ``"segments"``, of each segment while the
            sweep is in it. ``None`` is 1, or 0 with ``"reverse"`` and ``hvp="difference"``, which cannot keep any; but
            a learner that runs PyTorch's operators one by one then keeps all T of ``Adjoint()``, by ``Unrolled``, if
            they take at most 256 MiB, for one task 1 GiB (:mod:`rbml.learner.graphs`), which is up to twice as fast.

    Raises:
        UsageError: for an unknown ``store`` or ``hvp``, a negative ``window`` or ``keep``, ``keep`` where nothing can
            be kept, ``exact`` with another store, or, when called, rules whose steps cannot be undone.
    """

    store: Stores = "all"
    hvp: Mode = "forward"
    window: int | None = None
    exact: bool = False
    keep: int | None = None

    def __post_init__(self) -> None:
        """Refuse names that do not exist."""
        if self.store not in get_args(Stores):
            raise unknown("store", self.store, get_args(Stores))
        if self.hvp not in get_args(Mode):
            raise unknown("hvp mode", self.hvp, get_args(Mode))
        if self.exact and self.store != "reverse":
            raise UsageError(f"exact=True is for store='reverse'; store={self.store!r} loses no bits as it is")
        if self.keep is not None and self.keep < 0:
            raise UsageError(f"keep is how many steps keep their graph: 0 or more, not {self.keep}")
        if self.keep and not self._can_keep:
            raise UsageError(f"keep={self.keep}, but store='reverse' and hvp='difference' keep no graph: leave it out")
        check_window(self.window)

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and its derivative with respect to ``m``."""
        keep = int(self._can_keep) if self.keep is None else self.keep
        stores: dict[str, Store] = {
            "all": partial(everything, keep=keep),
            "segments": partial(segments, keep=keep),
            "reverse": exactly if self.exact else plainly,
        }
        return sweep(inner, m, first_seen(inner.steps, self.window), self.hvp, stores[self.store])

    @property
    def _can_keep(self) -> bool:
        return self.store != "reverse" and self.hvp != "difference"


def sweep(inner: Inner, m: Tree, first: int, hvp: Mode | None, store: Store = everything) -> MetaGradient:
    """Roll forward, then sweep back from the last step to step ``first``; earlier steps count as the identity.

    Args:
        inner: the problem.
        m: the meta-parameters.
        first: the first step that is differentiated.
        hvp: how part 2 of a step is taken; ``None`` leaves it out: the inner gradients count as constants.
        store: how the run is kept.
    """
    inner, carry, back, report = store(inner, m, first)
    loss, aux, bar, m_bar = inner.run(_pull_outer, inner, m, inner.steps, carry)
    for saved in back:
        carry = saved.carry
        if saved.length > 1:
            bar, m_bar = inner.run(_pull_steps, inner, m, saved.t, carry, bar, m_bar, hvp=hvp, count=saved.length)
            continue
        if saved.pull is None:
            bar, m_bar = inner.run(_pull_step, inner, m, saved.t, carry, saved.grads, bar, m_bar, hvp=hvp)
            continue
        v, bar, m_bar = _pull_update(inner, m, saved.t, carry, saved.grads, bar, m_bar)
        if hvp is not None:
            bar, m_bar = _added(bar, m_bar, *saved.pull(v))
    m_bar = inner.run(_pull_start, inner, m, 0, bar, m_bar)
    return MetaGradient(loss, m_bar, aux, report(carry))


# The pieces of work: functions of one task's trees, so that they can be compiled once and run on a stack of tasks.


def _pull_outer(inner: Inner, m: Tree, t: Step, carry: Carry) -> tuple[Tensor, Tree, Carry, Tree]:
    """Return the outer loss, aux, and the cotangents of the last carry and of all of m."""
    loss, aux, bar, m_bar = outer_gradient(inner, carry, m)
    return loss, aux, bar, add(zeros_like(m), m_bar)


def _pull_step(
    inner: Inner, m: Tree, t: Step, carry: Carry, grads: Tree, bar: Carry, m_bar: Tree, hvp: Mode | None
) -> tuple[Carry, Tree]:
    """Pull the cotangent of the next carry back through step ``t``, to its carry and to m."""
    v, bar, m_bar = _pull_update(inner, m, t, carry, grads, bar, m_bar)
    if hvp is None:
        return bar, m_bar
    seen = inner.entering(m, "objective")
    along = grad_product(lambda point, meta: inner.objective(point, m | meta, t), carry.theta, seen, v, hvp)
    return _added(bar, m_bar, *along)


def _pull_steps(
    inner: Inner, m: Tree, t: Step, carry: Carry, bar: Carry, m_bar: Tree, hvp: Mode | None, count: int
) -> tuple[Carry, Tree]:
    """Take steps again, and pull the cotangent back through all of them; compiled, no gradient is computed twice."""
    again = [(before, grads) for before, grads, _ in taken(inner, m, t, carry, count)]
    for ahead, (before, grads) in reversed(list(enumerate(again))):
        bar, m_bar = _pull_step(inner, m, t + ahead, before, grads, bar, m_bar, hvp)
    return bar, m_bar


def _pull_update(
    inner: Inner, m: Tree, t: Step, carry: Carry, grads: Tree, bar: Carry, m_bar: Tree
) -> tuple[Tree, Carry, Tree]:
    """Pull the cotangent of the next carry back to the gradient, the carry and m."""
    seen = inner.entering(m, "update")
    pull = func.vjp(lambda g, c, meta: inner.update(g, c, m | meta, t), grads, carry, seen)[1]
    v, carry_bar, found = pull(bar)
    return v, carry_bar, add(m_bar, found)


def _pull_start(inner: Inner, m: Tree, t: Step, bar: Carry, m_bar: Tree) -> Tree:
    """Pull the cotangent of the first carry back to m."""
    pull = func.vjp(lambda meta: inner.start(m | meta), inner.entering(m, "start"))[1]
    return add(m_bar, pull(bar)[0])


def _added(bar: Carry, m_bar: Tree, along_theta: Tree, along_m: Tree) -> tuple[Carry, Tree]:
    """Return the cotangents with the products of second derivatives added."""
    return Carry(add(bar.theta, along_theta), bar.state), add(m_bar, along_m)
