"""Rules for some of the parameters: another rate for the head, no decay for biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Parameterised, Rule, Values, part
from rbml.strategy.views import StepInfo
from rbml.tree import Step, Tree, matching, pick


@dataclass(frozen=True)
class _Restricted:
    """The numbers of a rule, for the parameters that it is restricted to."""

    pattern: str
    numbers: Parameterised
    learn: bool

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        own = pick(theta, matching(theta, self.pattern))
        if not own:
            raise UsageError(f"only({self.pattern!r}, ...) matches no adapted parameter; there are {', '.join(theta)}")
        return self.numbers.initial(own, steps, generator)

    def at(self, leaves: Tree, theta: Mapping[str, Tensor], t: Step) -> Tree:
        return self.numbers.at(leaves, pick(dict(theta), matching(theta, self.pattern)), t)


@part
def only(pattern: str, rule: Rule) -> Rule:
    """Apply a rule to the parameters that a pattern matches; the others pass it unchanged.

    The groups of parameters of ``torch.optim``: ``chain(only("head.*", sgd(0.1, name="fast")), only("!head.*",
    sgd(0.01)))`` has a rate for the head and another for the body.

    Args:
        pattern: of names of adapted parameters; several are joined with ``|``, and ``!`` leaves out.
        rule: the rule; two of one kind in a chain need different names.

    Raises:
        UsageError: in use, if the pattern matches no adapted parameter.
    """

    def init(theta: Tree) -> Tree:
        return rule.init(pick(theta, matching(theta, pattern)))

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        names = matching(direction, pattern)
        moved, after = rule.update(pick(direction, names), state, pick(theta, names), values, at)
        return direction | moved, after

    def before(theta: Tree, at: StepInfo) -> Tree:
        assert rule.before is not None
        return theta | rule.before(pick(theta, matching(theta, pattern)), at)

    numbers = {name: _Restricted(pattern, one, one.learn) for name, one in rule.hypers.items()}
    ahead = None if rule.before is None else before
    return Rule(rule.name, numbers, update, init, random=rule.random, before=ahead, by_class=rule.by_class)
