"""Gradient descent by rates that may be learned below zero, where they stop the parameter."""

from __future__ import annotations

import torch

from rbml.strategy.base import Rule, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, tmap


@part
def clipped_sgd(lr: float | Hyper = 0.1, name: str = "clipped_sgd") -> Rule:
    r"""Scale the direction by a learning rate, and by zero where the rate is negative.

    .. math:: d \leftarrow \max(\mathrm{lr}, 0) \cdot d

    A parameter whose rate was learned to be negative, because its steps on new examples hurt old ones, stays as it is.
    Source: La-MAML (Gupta, Yadav, Paull 2020, arXiv:2007.13904), with ``Hyper(0.1, per="element")``. Below zero a rate
    has no derivative here, so that only the outer step of :func:`rbml.training.online.learn_online`, or a decay, brings
    it back.

    Args:
        lr: the learning rate.
        name: the name of the part in the strategy.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(lambda d, lr: torch.relu(lr) * d, direction, values["lr"]), state

    return Rule(name, {"lr": as_hyper(lr)}, update, direct=True)
