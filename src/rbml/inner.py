"""The inner loop as a record of pure functions: what a learner hands to a hypergradient engine.

The record stands below both, so that neither imports the other. Everything is a flat tree (``rbml.tree``): ``m`` holds
the meta-parameters (theta0 and phi), ``theta`` what is adapted, ``state`` what the strategy keeps between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, func

from rbml.tree import Tree


class Carry(NamedTuple):
    """What one inner step hands to the next."""

    theta: Tree
    state: Tree


@dataclass(frozen=True)
class Inner:
    """One task's learning process, ready to be rolled forward or differentiated.

    Attributes:
        start: ``m -> Carry``.
        objective: ``(theta, m, t) -> scalar``: the support loss plus the strategy's terms.
        update: ``(grads, carry, m, t) -> Carry``: the strategy's rules.
        outer: ``(carry, m) -> (scalar, aux)``: the query loss, and a tree of what else is worth keeping.
        steps: T, how many steps there are.
        enters: by which of ``start``, ``objective``, ``update`` and ``outer`` each meta-parameter enters. With it an
            engine differentiates only what can matter, and knows what it is blind to. A name that is absent may enter
            by any of them.
    """

    start: Callable[[Tree], Carry]
    objective: Callable[[Tree, Tree, int], Tensor]
    update: Callable[[Tree, Carry, Tree, int], Carry]
    outer: Callable[[Carry, Tree], tuple[Tensor, Tree]]
    steps: int
    enters: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def entering(self, m: Tree, where: str) -> Tree:
        """Return the part of ``m`` that enters by the function named ``where``."""
        return {name: leaf for name, leaf in m.items() if where in self.enters.get(name, (where,))}


def step(inner: Inner, carry: Carry, m: Tree, t: int) -> tuple[Tree, Carry]:
    """Take inner step ``t`` and return its gradient and the next carry."""
    grads = func.grad(inner.objective)(carry.theta, m, t)
    return grads, inner.update(grads, carry, m, t)


def roll(inner: Inner, carry: Carry, m: Tree, start: int = 0, stop: int | None = None) -> Carry:
    """Take the steps from ``start`` up to ``stop`` (default: all of them) and return the last carry."""
    for t in range(start, inner.steps if stop is None else stop):
        _, carry = step(inner, carry, m, t)
    return carry
