r"""What a strategy is made of: rules and terms, chained in order.

A **rule** turns the gradient into a step. Rules hand a *descent direction* from one to the next, beginning with the
gradient, and in the end :math:`\theta \leftarrow \theta - d`. So every order of a chain has a meaning, and none has a
wrong sign: ``chain(weight_decay(1e-4), momentum(0.9), sgd(0.1))`` is SGD as in ``torch.optim``,
``chain(sgd(0.1), weight_decay(1e-4))`` decays apart from the gradient. A **term** adds to the inner objective. Rules
and terms hold no tensors and no state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.hyper import Hyper
from rbml.tree import Tree, pick, prefixed, tmap, under

Values = Mapping[str, Tree]
"""The numbers of one rule at one step: from a Hyper's name to one broadcastable tensor a parameter."""


def _stateless(theta: Tree) -> Tree:
    return {}


@dataclass(frozen=True)
class Rule:
    """How the descent direction is changed on its way to theta.

    Attributes:
        name: what its numbers are filed under: ``sgd.lr``.
        hypers: its numbers, by name.
        update: ``(direction, state, theta, values, t) -> (direction, state)``, a pure function.
        init: ``theta -> state``, a flat tree; empty for a rule without memory.
    """

    name: str
    hypers: Mapping[str, Hyper]
    update: Callable[[Tree, Tree, Tree, Values, int], tuple[Tree, Tree]]
    init: Callable[[Tree], Tree] = field(default=_stateless)


@dataclass(frozen=True)
class Term:
    """What is added to the support loss.

    Attributes:
        name: what its numbers are filed under.
        hypers: its numbers, by name.
        value: ``(theta, theta0, values, x, y, prediction) -> scalar``.
    """

    name: str
    hypers: Mapping[str, Hyper]
    value: Callable[[Tree, Tree, Values, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Strategy:
    """Rules and terms in order; made by :func:`chain`."""

    parts: tuple[Rule | Term, ...]

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order in which the direction passes them."""
        return [part for part in self.parts if isinstance(part, Rule)]

    @property
    def terms(self) -> list[Term]:
        """The terms of the inner objective."""
        return [part for part in self.parts if isinstance(part, Term)]

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> tuple[Tree, Tree]:
        """Return phi for parameters like ``theta``: the learned leaves and the fixed, named ``sgd.lr/conv.weight``."""
        learned: Tree = {}
        fixed: Tree = {}
        for part in self.parts:
            for name, hyper in part.hypers.items():
                leaves = prefixed(hyper.initial(theta, steps, generator), f"{part.name}.{name}")
                (learned if hyper.learn else fixed).update(leaves)
        return learned, fixed

    def values(self, part: Rule | Term, phi: Tree, theta: Tree, t: int) -> Values:
        """Return the numbers of one part at step ``t``, each as a tree over the names of ``theta``."""
        values: dict[str, Tree] = {}
        for name, hyper in part.hypers.items():
            whole = f"{part.name}.{name}"
            leaves = {
                key[len(whole) :]: leaf for key, leaf in phi.items() if key == whole or key.startswith(f"{whole}/")
            }
            values[name] = hyper.at(leaves, theta, t)
        return values

    def init(self, theta: Tree) -> Tree:
        """Return the state before the first step, filed under the names of the rules."""
        state: Tree = {}
        for rule in self.rules:
            state |= prefixed(rule.init(theta), f"{rule.name}/")
        return state

    def update(self, grads: Tree, state: Tree, theta: Tree, phi: Tree, t: int) -> tuple[Tree, Tree]:
        """Pass the gradient through all rules and return the next theta and the next state."""
        direction: Tree = grads
        next_state: Tree = {}
        for rule in self.rules:
            own = under(state, f"{rule.name}/")
            direction, own = rule.update(direction, own, theta, self.values(rule, phi, theta, t), t)
            next_state |= prefixed(own, f"{rule.name}/")
        return tmap(torch.sub, theta, direction), next_state

    def term(
        self, theta: Tree, theta0: Tree, phi: Tree, batch: tuple[Tensor, Tensor, Tensor], t: int
    ) -> Tensor | float:
        """Return the sum of all terms at step ``t``; ``batch`` is (x, y, prediction)."""
        total: Tensor | float = 0.0
        for term in self.terms:
            total = total + term.value(theta, theta0, self.values(term, phi, theta, t), *batch)
        return total

    def terms_of(self, phi: Tree) -> Tree:
        """Return the leaves of phi that belong to terms (the others belong to rules)."""
        return pick(phi, [name for term in self.terms for name in phi if name.startswith(f"{term.name}.")])


def chain(*parts: Rule | Term | Strategy) -> Strategy:
    """Put rules and terms together; strategies among them are laid open.

    Raises:
        UsageError: if there is none, or two have the same name: their numbers would be one.
    """
    flat: list[Rule | Term] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Strategy) else (part,))
    names = [part.name for part in flat]
    if not flat:
        raise UsageError("a strategy needs at least one rule, such as sgd(0.1)")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two parts of a strategy are named {', '.join(twice)}: give one of them another name=")
    return Strategy(tuple(flat))
