"""A chain of rules taken apart at its running sum, so that a step can be walked back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from rbml.errors import UsageError
from rbml.strategy.base import Rule, RunningSum, StepInfo, Strategy, stateless
from rbml.strategy.hyper import Bounds, Hyper
from rbml.tree import Tree, prefixed, under

_ELSE = "use Adjoint(store='segments') or Adjoint(store='all')"
DENOMINATOR = 2**16
"""The largest denominator that a fixed decay is written with."""


@dataclass(frozen=True)
class Split:
    """What comes before the running sum, the sum, and what comes after it.

    Attributes:
        strategy: the whole chain.
        before: rules without memory; they may look at theta.
        rule: the rule that keeps the sum.
        after: rules that look at the direction alone.
    """

    strategy: Strategy
    before: list[Rule]
    rule: Rule
    after: list[Rule]

    @property
    def sums(self) -> RunningSum:
        """The running sum."""
        assert self.rule.sums is not None
        return self.rule.sums

    def decay(self, phi: Tree, theta: Tree, t: int) -> Tree:
        """Return the decay of every leaf of the sum, named as in the state."""
        values = self.strategy.values(self.rule, phi, theta, t)
        return prefixed(values[self.sums.decay], f"{self.rule.name}/")

    def inflow(self, grads: Tree, theta: Tree, phi: Tree, at: StepInfo) -> Tree:
        """Return what the gradient adds to the sum."""
        direction = grads
        for rule in self.before:
            direction, _ = rule.update(direction, {}, theta, self.strategy.values(rule, phi, theta, at.t), at)
        values = self.strategy.values(self.rule, phi, theta, at.t)
        return prefixed(self.sums.inflow(direction, values, at), f"{self.rule.name}/")

    def outflow(self, state: Tree, phi: Tree, at: StepInfo) -> Tree:
        """Return the step that the sum makes theta take."""
        direction = under(state, f"{self.rule.name}/")
        for rule in self.after:
            direction, _ = rule.update(direction, {}, {}, self.strategy.values(rule, phi, direction, at.t), at)
        return direction

    @property
    def ratio(self) -> Fraction | None:
        """The decay as a fraction, where it is one fixed number."""
        hyper = self.rule.hypers[self.sums.decay]
        if not isinstance(hyper, Hyper) or hyper.learn or hyper.range[0] < hyper.range[1]:
            return None
        return Fraction(hyper.range[0]).limit_denominator(DENOMINATOR)

    @property
    def span(self) -> Bounds:
        """Between which bounds the decay stays, whatever is learned."""
        hyper = self.rule.hypers[self.sums.decay]
        if not isinstance(hyper, Hyper):
            return None, None
        return hyper.bounds if hyper.learn else hyper.range


def split(strategy: Strategy) -> Split:
    """Take a chain apart at its running sum.

    Raises:
        UsageError: naming the rule whose step cannot be undone, and what to use instead.
    """
    rules = strategy.rules
    names = ", ".join(rule.name for rule in rules)
    for rule in rules:
        if rule.sums is None and rule.init is not stateless:
            raise UsageError(f"a step of {rule.name} cannot be undone, only one of momentum without nesterov: {_ELSE}")
    places = [place for place, rule in enumerate(rules) if rule.sums is not None]
    if len(places) != 1:
        found = "two running sums" if places else "none, and its steps forget where they came from"
        raise UsageError(f"a step can be undone where one rule keeps a running sum; {names} has {found}: {_ELSE}")
    before, rule, after = rules[: places[0]], rules[places[0]], rules[places[0] + 1 :]
    for late in after:
        if not late.direct:
            raise UsageError(
                f"{late.name} after {rule.name} may look at theta, so that a step cannot be undone: put it before "
                f"{rule.name}, or {_ELSE}"
            )
    return Split(strategy, before, rule, after)
