"""A strategy: rules, terms, gates and at most one start, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Gate, Part, Rule, Start, Term, Values, layer_of
from rbml.strategy.views import Features, StepInfo, TermInputs
from rbml.tree import Step, Tree, pick, prefixed, tmap, under


def _at_least_float32(leaf: Tensor) -> Tensor:
    """Convert half-precision numbers to single precision; leave others as they are."""
    return leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf


@dataclass(frozen=True)
class Strategy:
    """Rules, terms, gates and at most one start, in order; made by :func:`chain`."""

    parts: tuple[Part, ...]

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order in which they change the direction."""
        return [part for part in self.parts if isinstance(part, Rule)]

    @property
    def terms(self) -> list[Term]:
        """The terms of the inner objective."""
        return [part for part in self.parts if isinstance(part, Term)]

    @property
    def gates(self) -> list[Gate]:
        """The gates, in the order in which they are applied."""
        return [part for part in self.parts if isinstance(part, Gate)]

    @property
    def anchored(self) -> bool:
        """Whether a term depends on theta0."""
        return any(term.anchored for term in self.terms)

    @property
    def start(self) -> Start | None:
        """The part that makes the head from the support set, if there is one."""
        return next((part for part in self.parts if isinstance(part, Start)), None)

    @property
    def random(self) -> bool:
        """Whether a part draws random numbers."""
        return any(part.random for part in self.parts if not isinstance(part, Start))

    @property
    def by_class(self) -> bool:
        """Whether a rule must know when the classes of a stream come."""
        return any(rule.by_class for rule in self.rules)

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> tuple[Tree, Tree]:
        """Return phi for parameters like ``theta``: the learned leaves and the fixed, named ``sgd.lr/conv.weight``."""
        learned: Tree = {}
        fixed: Tree = {}
        for part in self.parts:
            for name, quantity in part.hypers.items():
                leaves = prefixed(quantity.initial(theta, steps, generator), f"{part.name}.{name}")
                (learned if quantity.learn else fixed).update(leaves)
        return learned, fixed

    def values(self, part: Part, phi: Tree, theta: Tree, t: Step) -> Values:
        """Return the numbers of one part at step ``t``."""
        values: dict[str, Tree] = {}
        for name, quantity in part.hypers.items():
            whole = f"{part.name}.{name}"
            leaves = {
                key[len(whole) :]: leaf for key, leaf in phi.items() if key == whole or key.startswith(f"{whole}/")
            }
            values[name] = quantity.at(leaves, theta, t)
        return values

    def init(self, theta: Tree) -> Tree:
        """Return the state before the first step; its names begin with those of the rules."""
        state: Tree = {}
        for rule in self.rules:
            state |= prefixed(rule.init(theta), f"{rule.name}/")
        # Running means in bfloat16 do not move: 1 - 0.999 is below its resolution.
        return {name: _at_least_float32(leaf) for name, leaf in state.items()}

    def head(self, theta: Tree, phi: Tree, features: Features) -> tuple[Tensor, Tensor]:
        """Return the head that the start makes: weight ``(C, d)`` and bias ``(C,)``."""
        assert self.start is not None
        return self.start.head(self.values(self.start, phi, theta, 0), features)

    def update(self, grads: Tree, state: Tree, theta: Tree, phi: Tree, at: StepInfo) -> tuple[Tree, Tree]:
        """Pass the gradient through all rules and return the next theta and the next state."""
        direction: Tree = grads
        next_state: Tree = {}
        for rule in self.rules:
            own = under(state, f"{rule.name}/")
            direction, own = rule.update(direction, own, theta, self.values(rule, phi, theta, at.t), at)
            next_state |= prefixed(own, f"{rule.name}/")
        # A step number that is a tensor is in double precision, and must not widen parameters of one number.
        return tmap(lambda leaf, d: leaf - d.to(leaf.dtype), theta, direction), next_state

    def before(self, theta: Tree, at: StepInfo) -> Tree:
        """Return theta as it is when step ``at.t`` takes its gradient."""
        for rule in self.rules:
            if rule.before is not None:
                theta = rule.before(theta, at)
        return theta

    def objective(self, phi: Tree, inputs: TermInputs) -> Tensor:
        """Return the support loss, or the terms that take its place, plus all other terms."""
        total = torch.zeros(()) if any(term.alone for term in self.terms) else inputs.objective()
        for term in self.terms:
            total = total + term.value(self.values(term, phi, inputs.theta, inputs.at.t), inputs)
        return total

    def gated(self, phi: Tree, theta: Tree, at: StepInfo) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        """Return the gated layers by name, each with the function applied to its inputs, in order."""
        gated: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        for gate in self.gates:
            for layer in gate.among(theta):
                own = {name: leaf for name, leaf in theta.items() if layer_of(name) == layer}
                values = self.values(gate, phi, own, at.t)
                gated.append((layer, partial(gate.apply, values, layer=layer, at=at)))
        return gated

    def of(self, phi: Tree, kind: type[Part]) -> Tree:
        """Return the leaves of phi that belong to parts of one kind."""
        parts = [part for part in self.parts if isinstance(part, kind)]
        return pick(phi, [name for part in parts for name in phi if name.startswith(f"{part.name}.")])


def chain(*parts: Part | Strategy) -> Strategy:
    """Combine parts into a strategy; strategies among them are replaced by their parts.

    Raises:
        UsageError: if there is no part, two have the same name (their numbers would clash), or there are two starts.
    """
    flat: list[Part] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Strategy) else (part,))
    names = [part.name for part in flat]
    if not flat:
        raise UsageError("a strategy needs at least one rule, such as sgd(0.1)")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two parts of a strategy are named {', '.join(twice)}: give one of them another name=")
    starts = [part.name for part in flat if isinstance(part, Start)]
    if len(starts) > 1:
        raise UsageError(f"{' and '.join(starts)} would both make the head: keep one of them")
    return Strategy(tuple(flat))
