"""Rules whose numbers a small network computes for each task, from the means of the task's gradients and weights."""

from __future__ import annotations

import math

import torch

from rbml.errors import UsageError
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.networks import first, forward, means, perceptron
from rbml.strategy.views import StepInfo
from rbml.strategy.weights import Weights
from rbml.tree import Tree

_RATE = Hyper(0.01, per="tensor", per_step=True)
_DECAY = Hyper(5e-6, per="tensor", per_step=True)


@part
def alfa(lr: float | Hyper = _RATE, decay: float | Hyper = _DECAY, name: str = "alfa") -> Rule:
    r"""Multiply learning rates and weight decays by factors that a network computes for the task at every step.

    .. math:: d_i \leftarrow \mathrm{lr}_i\, a_i\, d_i + \mathrm{decay}_i\, b_i\, \theta_i, \qquad
              (a, b) = \mathrm{MLP}(\overline{\theta}_1 .. \overline{\theta}_N,\; \overline{d}_1 .. \overline{d}_N)

    The inputs of the network are the mean of each of the N tensors and the mean of each tensor's direction. In the
    paper's notation :math:`\theta \leftarrow \beta \theta - \alpha \nabla L` with :math:`\alpha = \mathrm{lr}\, a` and
    :math:`\beta = 1 - \mathrm{decay}\, b`.

    Source: ALFA (Baik et al. 2020, arXiv:2011.00209), with the defaults of the authors' code: one rate and one decay
    per tensor and step, a hidden layer of 2N ReLU units, the same network at every step. The authors draw its last
    layer at random; here its weights start at zero and its bias at one, so that learning starts with lr and decay
    unchanged. The rule sets the learning rate itself: put it first in a chain, where the direction is the gradient,
    without ``sgd``.

    Cost: 8 N * N numbers and about as many multiplications per step.

    Args:
        lr: the learning rate, multiplied by the network's factor.
        decay: the weight decay, multiplied by the network's factor; not scaled by lr.
        name: the name of the part in the strategy.
    """

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        width = 2 * len(theta)
        return perceptron((width, width, width), first(theta), generator, last=1.0)

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        seen = torch.stack([*means(theta), *means(direction)])
        rates, decays = forward(values["net"], seen, torch.relu).chunk(2)
        after: Tree = {}
        # `means` lists tensors in the order of their names, and the outputs follow it whatever the order of theta.
        for index, key in enumerate(sorted(theta)):
            rate, pull = values["lr"][key] * rates[index], values["decay"][key] * decays[index]
            after[key] = rate * direction[key] + pull * theta[key]
        return {key: after[key] for key in direction}, state

    return Rule(name, {"lr": as_hyper(lr), "decay": as_hyper(decay), "net": Weights(start)}, update)


@part
def attenuate(keep: float = 0.95, name: str = "attenuate") -> Rule:
    r"""Shrink every tensor of theta0 by a factor that a network computes for the task, in place of the first step.

    .. math:: t = 0:\; d_i \leftarrow (1 - \gamma_i)\, \theta_i, \qquad
              \gamma = \mathrm{sigmoid}(\mathrm{MLP}(\overline{d}_1 .. \overline{d}_N)) \qquad\qquad
              t > 0:\; d \leftarrow d

    so that :math:`\theta_1 = \gamma \theta_0`: prior knowledge that conflicts with the task's gradient can be forgotten
    before the task is learned. A learner with T + 1 steps attenuates first and then takes T steps.

    Source: L2F (Baik et al. 2020, arXiv:1906.05859): a hidden layer of N ReLU units; one gamma for each of the N
    tensors, computed from the means of their gradients. Three things differ: the network sees the direction as it
    arrives (lr times the gradient in ``chain(sgd(lr), attenuate())``); the derivative passes through that input, where
    the authors' code detaches it; and gamma starts at ``keep`` for every task, where the authors draw the last layer at
    random.

    Put it last in the chain: a rule after it would act on the attenuation. Rules before it still see the gradient at
    theta0: ``momentum`` adds it to its sum, adaptive rules to their moments, and values of theirs for step 0 influence
    only gamma.

    Args:
        keep: the initial value of gamma, between 0 and 1.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if ``keep`` is not between 0 and 1.
    """
    if not 0 < keep < 1:
        raise UsageError(f"keep must lie strictly between 0 and 1, not {keep}")

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        width = len(theta)
        return perceptron((width, width, width), first(theta), generator, last=math.log(keep / (1 - keep)))

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        if isinstance(at.t, int) and at.t > 0:  # spares the network where the step is known
            return direction, state
        gammas = torch.sigmoid(forward(values["net"], torch.stack(means(direction)), torch.relu))
        gamma = dict(zip(sorted(theta), gammas.unbind(), strict=True))
        return at.first({key: (1 - gamma[key]) * theta[key] for key in direction}, direction), state

    return Rule(name, {"net": Weights(start)}, update)
