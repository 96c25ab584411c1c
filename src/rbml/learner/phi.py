"""Phi: the numbers of a strategy that a learner keeps as parameters, and how to change to another strategy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from rbml.autodiff import module as modules
from rbml.devices import CPU
from rbml.errors import UsageError
from rbml.learner.initial import leave_head_to_support
from rbml.strategy import Part, Strategy, chain
from rbml.tree import pick

if TYPE_CHECKING:
    from rbml.learner.learner import Learner


def start_of_phi(learner: Learner, generator: torch.Generator | None) -> nn.Module:
    """Return a module whose parameters are phi at its start, and whose buffers are the numbers that stay fixed."""
    theta = {
        name: leaf.detach() for name, leaf in pick(dict(learner.model.named_parameters()), learner.adapted).items()
    }
    for gate in learner.strategy.gates:
        gate.among(theta)  # raises if its pattern matches no layer
    made = modules.nested(*learner.strategy.initial(theta, learner.steps, generator))
    # What is drawn is drawn on the processor, whatever the model is on.
    return made.to(next((leaf.device for leaf in learner.model.parameters()), CPU))


def with_strategy(learner: Learner, strategy: Strategy | Part, generator: torch.Generator | None) -> Learner:
    """Return a copy of the learner; arguments as in :meth:`rbml.Learner.with_strategy`."""
    other, start = copy.deepcopy(learner), learner.strategy.start
    other.strategy = chain(strategy)
    check_rules(other.strategy, learner.steps)
    if other.strategy.start is not None:
        leave_head_to_support(other.model, learner.head, learner.adapted, learner.initial.adapt)
    # The old strategy made the head from the support set; under the new one the model's own head is learned again.
    for name in learner.head if start is not None and other.strategy.start is None else []:
        other.model.get_parameter(name).requires_grad_(True)
    other.phi = start_of_phi(other, generator)
    return other


def check_rules(strategy: Strategy, steps: int) -> None:
    """Refuse a strategy that has no rule to take steps with, if there are inner steps.

    Raises:
        UsageError: if it has no rule.
    """
    if steps and not strategy.rules:
        raise UsageError("the strategy has no rule that takes steps: add one, such as sgd(0.1)")
