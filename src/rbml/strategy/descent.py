"""Rules of plain gradient descent: the learning rate, momentum and weight decay."""

from __future__ import annotations

import torch

from rbml.strategy.base import Rule, RunningSum, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, tmap, zeros_like


@part
def sgd(lr: float | Hyper = 0.1, name: str = "sgd") -> Rule:
    r"""Scale the direction by a learning rate.

    .. math:: d \leftarrow \mathrm{lr} \cdot d

    ``Hyper(per="element")`` gives the learning rates of Meta-SGD (Li et al. 2017, arXiv:1707.09835),
    ``Hyper(per="layer", per_step=True)`` those of MAML++ (Antoniou et al. 2019, arXiv:1810.09502).

    Args:
        lr: the learning rate; a plain number is fixed, a :class:`Hyper` may be learned.
        name: the name of the part in the strategy.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(torch.mul, direction, values["lr"]), state

    return Rule(name, {"lr": as_hyper(lr)}, update, direct=True)


@part
def momentum(
    decay: float | Hyper = 0.9, nesterov: bool = False, dampening: float | Hyper = 0.0, name: str = "momentum"
) -> Rule:
    r"""Replace the direction by its running sum, as ``torch.optim.SGD(momentum=...)`` does.

    .. math:: b \leftarrow \mathrm{decay} \cdot b + (1 - \mathrm{dampening})\, d, \qquad d \leftarrow b
              \quad (\text{Nesterov: } d \leftarrow d + \mathrm{decay} \cdot b)

    Source: Sutskever et al. 2013, in the form of ``torch.optim.SGD``, which does not dampen the first step. It does not
    set a learning rate: ``chain(momentum(0.9), sgd(0.1))``. Without Nesterov its steps can be undone
    (``Adjoint(store="reverse")``). State: one tensor like theta.

    Args:
        decay: the fraction of the sum kept at each step; learn it with ``Hyper(0.9, bounds=(0, 1))``.
        nesterov: whether to look one step ahead.
        dampening: the fraction of each new direction that is left out of the sum; if it equals the decay, the sum is a
            running mean.
        name: the name of the part in the strategy.
    """
    damped = as_hyper(dampening)

    # `inflow` is separate from `update` because `Adjoint(store="reverse")` needs it to subtract what a step added.
    def inflow(direction: Tree, values: Values, at: StepInfo) -> Tree:
        if "dampening" not in values:
            return direction
        return at.first(direction, tmap(lambda d, left_out: (1 - left_out) * d, direction, values["dampening"]))

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        decays, added = values["decay"], inflow(direction, values, at)
        buffer = tmap(lambda b, d, mu: mu * b + d, state, added, decays)
        ahead = tmap(lambda d, b, mu: d + mu * b, direction, buffer, decays) if nesterov else buffer
        return ahead, buffer

    numbers = {"decay": as_hyper(decay)}
    # A dampening fixed at zero gets no entry in phi.
    if damped.learn or damped.range != (0, 0):
        numbers["dampening"] = damped
    return Rule(name, numbers, update, zeros_like, sums=None if nesterov else RunningSum("decay", inflow))


@part
def weight_decay(rate: float | Hyper = 1e-4, name: str = "weight_decay") -> Rule:
    r"""Pull the parameters towards zero.

    .. math:: d \leftarrow d + \mathrm{rate} \cdot \theta

    Placed before :func:`sgd` in the chain it is the weight decay of ``torch.optim.SGD``. Placed after, it is the
    decoupled decay of Loshchilov and Hutter (2019, arXiv:1711.05101), which the learning rate does not scale.

    Args:
        rate: the strength of the decay.
        name: the name of the part in the strategy.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(lambda d, p, rate: d + rate * p, direction, theta, values["rate"]), state

    return Rule(name, {"rate": as_hyper(rate)}, update)
