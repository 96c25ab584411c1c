"""A chain of rules split at its running sum, so that a step can be undone."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from rbml.errors import UsageError
from rbml.strategy.base import Rule, RunningSum, stateless
from rbml.strategy.chain import Strategy
from rbml.strategy.hyper import Bounds, Hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, prefixed, under

_ELSE = "use Adjoint(store='segments') or Adjoint(store='all')"
DENOMINATOR = 2**16
"""The largest denominator of the fraction that represents a fixed decay."""


@dataclass(frozen=True)
class Split:
    r"""A chain of rules split into those before the running sum, the one that keeps the sum, and those after it.

    A step with the sum b is :math:`b' = decay \cdot b + inflow(g, \theta)`, :math:`\theta' = \theta - outflow(b')`. To
    undo it, add outflow(b') to theta', compute the gradient g at the resulting theta, and solve the first equation for
    b.

    Attributes:
        strategy: the whole chain.
        before: rules without state; they may depend on theta.
        rule: the rule that keeps the running sum.
        after: rules that depend on the direction alone.
    """

    strategy: Strategy
    before: list[Rule]
    rule: Rule
    after: list[Rule]

    @property
    def sums(self) -> RunningSum:
        """The running sum of the rule that keeps it."""
        assert self.rule.sums is not None
        return self.rule.sums

    def decay(self, phi: Tree, theta: Tree, t: int) -> Tree:
        """Return the decay of every leaf of the sum, with the names of the state."""
        values = self.strategy.values(self.rule, phi, theta, t)
        return prefixed(values[self.sums.decay], f"{self.rule.name}/")

    def inflow(self, grads: Tree, theta: Tree, phi: Tree, at: StepInfo) -> Tree:
        """Return what the gradient contributes to the sum at this step."""
        direction = grads
        for rule in self.before:
            direction, _ = rule.update(direction, {}, theta, self.strategy.values(rule, phi, theta, at.t), at)
        values = self.strategy.values(self.rule, phi, theta, at.t)
        return prefixed(self.sums.inflow(direction, values, at), f"{self.rule.name}/")

    def outflow(self, state: Tree, phi: Tree, at: StepInfo) -> Tree:
        """Return the change of theta that the sum causes at this step."""
        direction = under(state, f"{self.rule.name}/")
        # Rules after the sum must not depend on theta (`split` checks), so no theta is passed to them.
        for rule in self.after:
            direction, _ = rule.update(direction, {}, {}, self.strategy.values(rule, phi, direction, at.t), at)
        return direction

    @property
    def ratio(self) -> Fraction | None:
        """The decay as a fraction, if it is a single fixed number."""
        hyper = self.rule.hypers[self.sums.decay]
        if not isinstance(hyper, Hyper) or hyper.learn or hyper.range[0] < hyper.range[1]:
            return None
        return Fraction(hyper.range[0]).limit_denominator(DENOMINATOR)

    @property
    def span(self) -> Bounds:
        """The bounds of the decay, whatever is learned."""
        hyper = self.rule.hypers[self.sums.decay]
        if not isinstance(hyper, Hyper):
            return None, None
        return hyper.bounds if hyper.learn else hyper.range


def split(strategy: Strategy) -> Split:
    """Split a chain at its running sum.

    Args:
        strategy: the chain.

    Raises:
        UsageError: if a step cannot be undone; the message names the rule and what to use instead.
    """
    rules = strategy.rules
    names = ", ".join(rule.name for rule in rules)
    for rule in rules:
        if rule.before is not None:
            raise UsageError(f"{rule.name} overwrites parameters, which cannot be undone: {_ELSE}")
        if rule.sums is None and rule.init is not stateless:
            raise UsageError(
                f"a step of {rule.name} cannot be undone; of the rules with a state only momentum without nesterov "
                f"can: {_ELSE}"
            )
    places = [place for place, rule in enumerate(rules) if rule.sums is not None]
    if len(places) != 1:
        found = f"{len(places)}" if places else "none, so that the carry before a step is lost"
        raise UsageError(f"undoing a step needs exactly one rule with a running sum; {names} has {found}: {_ELSE}")
    before, rule, after = rules[: places[0]], rules[places[0]], rules[places[0] + 1 :]
    for late in after:
        if not late.direct:
            raise UsageError(
                f"{late.name} comes after {rule.name} and may depend on theta, so that a step cannot be undone: put it "
                f"before {rule.name}, or {_ELSE}"
            )
    return Split(strategy, before, rule, after)
