"""The inner loop as a record of pure functions: what a learner hands to a hypergradient engine.

Both import it, so that neither imports the other. Everything is a flat tree (``rbml.tree``): ``m`` holds
the meta-parameters (theta0 and phi), ``theta`` what is adapted, ``state`` what the strategy keeps between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from rbml.autodiff.alone import gradient
from rbml.errors import UsageError
from rbml.tree import Step, Tree


class Carry(NamedTuple):
    """What one inner step passes to the next."""

    theta: Tree
    state: Tree


@dataclass(frozen=True)
class Undo:
    r"""A step in a form that can be walked back: a running sum s is kept, and theta moves by it alone.

    .. math:: s' = decay \cdot s + inflow(g, \theta), \qquad \theta' = \theta - outflow(s'), \qquad
              r' = r + gain(\theta')

    From :math:`(\theta', s', r')` first theta follows, then its gradient g, then s and r. The leaves of s and r are
    named as in ``Carry.state``, which has no others.

    Attributes:
        decay: ``(m, t) -> tree``: one broadcastable number per leaf of s.
        inflow: ``(grads, theta, m, t) -> tree``, named as s.
        outflow: ``(s, m, t) -> tree``, named as theta.
        gain: ``(theta, m, t) -> tree``: what the step adds to r, named as r; may be empty.
        ratio: the decay as a fraction, where it is one fixed number.
        span: the bounds of the decay, whatever is learned; ``None`` means no bound on that side.
    """

    decay: Callable[[Tree, int], Tree]
    inflow: Callable[[Tree, Tree, Tree, int], Tree]
    outflow: Callable[[Tree, Tree, int], Tree]
    gain: Callable[[Tree, Tree, int], Tree]
    ratio: Fraction | None = None
    span: tuple[float | None, float | None] = (None, None)


def _no_way_back() -> Undo:
    raise UsageError("the steps of this inner loop cannot be undone: use Adjoint(store='segments')")


Function = Callable[..., Any]
"""``(inner, m, t, *trees, **options) -> trees``: one piece of work on one task; it uses no other tensors."""


class Runner(Protocol):
    """How the pieces of an engine's work are run: on one task, or compiled once for a stack of tasks."""

    def __call__(self, function: Function, inner: Inner, m: Tree, t: Step, *trees: Any, **options: Any) -> Any:
        """Return ``function(inner, m, t, *trees, **options)``."""
        ...


def directly(function: Function, inner: Inner, m: Tree, t: Step, *trees: Any, **options: Any) -> Any:
    """Run a piece of work on one task, as plain Python."""
    return function(inner, m, t, *trees, **options)


@dataclass(frozen=True)
class Inner:
    """One task's learning process, ready to be rolled forward or differentiated.

    Attributes:
        start: ``m -> Carry``.
        objective: ``(theta, m, t) -> scalar``: the support loss plus the strategy's terms.
        update: ``(grads, carry, m, t) -> Carry``: the strategy's rules.
        outer: ``(carry, m) -> (scalar, aux)``: the query loss, and a tree of other results to return.
        steps: T, the number of steps.
        enters: which of ``start``, ``objective``, ``update`` and ``outer`` depend on each meta-parameter. An engine
            then differentiates only those functions, and knows which meta-parameters it cannot see. A name that is
            missing may be used by any of them.
        undo: returns how a step is undone; raises a ``UsageError`` if the rules cannot be undone.
        run: how the pieces of an engine's work are run.
        block: how many steps are one piece of work where steps follow one another: with compiled pieces, small steps
            would otherwise spend their time in calls.
    """

    start: Callable[[Tree], Carry]
    objective: Callable[[Tree, Tree, Step], Tensor]
    update: Callable[[Tree, Carry, Tree, Step], Carry]
    outer: Callable[[Carry, Tree], tuple[Tensor, Tree]]
    steps: int
    enters: Mapping[str, frozenset[str]] = field(default_factory=dict)
    undo: Callable[[], Undo] = _no_way_back
    run: Runner = directly
    block: int = 1

    def entering(self, m: Tree, where: str) -> Tree:
        """Return the part of ``m`` on which the function named ``where`` depends."""
        return {name: leaf for name, leaf in m.items() if where in self.enters.get(name, (where,))}


def step(inner: Inner, carry: Carry, m: Tree, t: Step) -> tuple[Tree, Carry]:
    """Take inner step ``t`` and return its gradient and the next carry."""
    taken: tuple[Tree, Carry] = inner.run(_step, inner, m, t, carry)
    return taken


def _step(inner: Inner, m: Tree, t: Step, carry: Carry) -> tuple[Tree, Carry]:
    grads = gradient(inner.objective, carry.theta, m, t)
    return grads, inner.update(grads, carry, m, t)


def steps(inner: Inner, carry: Carry, m: Tree, t: Step, count: int) -> Carry:
    """Take ``count`` inner steps from step ``t`` on as one piece of work, and return the next carry."""
    taken: Carry = inner.run(_steps, inner, m, t, carry, count=count)
    return taken


def _steps(inner: Inner, m: Tree, t: Step, carry: Carry, count: int) -> Carry:
    *_, (_, _, last) = taken(inner, m, t, carry, count)
    return last


def taken(inner: Inner, m: Tree, t: Step, carry: Carry, count: int) -> Iterator[tuple[Carry, Tree, Carry]]:
    """Take steps one after another, and yield the carry before each, its gradient, and the carry after it."""
    for ahead in range(count):
        grads, after = _step(inner, m, t + ahead, carry)
        yield carry, grads, after
        carry = after


def pieces(inner: Inner, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the first step and the number of steps of every piece of work from one step up to another.

    >>> list(pieces(Inner(*[None] * 4, steps=9, block=4), 0, 9))
    [(0, 4), (4, 4), (8, 1)]
    """
    at = start
    while at < stop:
        count = inner.block if at + inner.block <= stop else 1
        yield at, count
        at += count


def begin(inner: Inner, m: Tree) -> Carry:
    """Return the carry before the first step."""
    carry: Carry = inner.run(_begin, inner, m, 0)
    return carry


def _begin(inner: Inner, m: Tree, t: Step) -> Carry:
    return inner.start(m)


def roll(inner: Inner, carry: Carry, m: Tree, start: int = 0, stop: int | None = None) -> Carry:
    """Take the steps from ``start`` up to ``stop`` (default: all of them) and return the last carry."""
    for t, count in pieces(inner, start, inner.steps if stop is None else stop):
        carry = step(inner, carry, m, t)[1] if count == 1 else steps(inner, carry, m, t, count)
    return carry
