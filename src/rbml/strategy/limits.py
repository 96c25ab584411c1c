"""Rules that bound the direction or shake it: clipping by norm, clipping by value, noise."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.adaptive import root
from rbml.strategy.base import Rule, StepInfo, Values, part
from rbml.strategy.draws import normal
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.tree import Tree, tmap


@part
def clip_norm(limit: float | Hyper = 1.0, name: str = "clip_norm") -> Rule:
    r"""Shorten the direction to a given length, as ``torch.nn.utils.clip_grad_norm_`` does.

    .. math:: d \leftarrow \min\left(1, \frac{\mathrm{limit}}{\|d\| + 10^{-6}}\right) d

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063. The norm is Euclidean, over all parameters that are adapted,
    also where the limit differs from one to another. First in the chain it clips the gradient. A shorter direction
    passes unchanged, and then the limit has the derivative zero.

    Args:
        limit: the greatest length; learn it with ``Hyper(1.0, bounds=(0, None))``.
        name: what it is filed under.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        length = root(torch.stack([(leaf * leaf).sum() for leaf in direction.values()]).sum())
        return tmap(
            lambda d, limit: d * torch.clamp(limit / (length + 1e-6), max=1.0), direction, values["limit"]
        ), state

    return Rule(name, {"limit": as_hyper(limit)}, update, direct=True)


@part
def clip_value(limit: float | Hyper = 1.0, soft: bool = False, name: str = "clip_value") -> Rule:
    r"""Keep every element of the direction between -limit and limit.

    .. math:: d \leftarrow \max(-\mathrm{limit}, \min(\mathrm{limit}, d))
              \quad (\text{soft: } \mathrm{limit} \cdot \tanh(d / \mathrm{limit}))

    As ``torch.nn.utils.clip_grad_value_``. A clipped element hides what came before it from the hypergradient; the soft
    form (ours) lets a little through, and changes the elements inside the limit a little too.

    Args:
        limit: the greatest size, above zero; learn it with ``Hyper(1.0, bounds=(0, None))``.
        soft: whether it bends instead of breaking off.
        name: what it is filed under.
    """

    def clipped(d: Tensor, limit: Tensor) -> Tensor:
        return limit * torch.tanh(d / limit) if soft else torch.clamp(d, -limit, limit)

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(clipped, direction, values["limit"]), state

    return Rule(name, {"limit": as_hyper(limit)}, update, direct=True)


@part
def noise(std: float | Hyper = 0.1, decay: float | Hyper = 0.55, name: str = "noise") -> Rule:
    r"""Add normal noise that fades over the steps.

    .. math:: d \leftarrow d + \frac{\mathrm{std}}{(1 + t)^{\mathrm{decay} / 2}}\, n, \qquad n \sim \mathcal{N}(0, I)

    Source: Neelakantan et al. 2015, arXiv:1511.06807, whose eta is std squared (0.01, 0.3 or 1) and whose gamma is the
    decay. First in the chain it is noise of the gradient. The noise is a function of the task's key, the step and the
    parameter's name (:func:`rbml.strategy.normal`), so that an engine that takes a step twice sees it again; the
    derivatives are those for the noise that was drawn.

    Args:
        std: the standard deviation at the first step.
        decay: how soon the variance fades; 0 is the same at every step.
        name: what it is filed under; two of them with other names draw other numbers.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        stds = tmap(lambda std, decay: std * (1.0 + at.time) ** (-0.5 * decay), values["std"], values["decay"])
        return {key: d + stds[key] * normal(at, f"{name}/{key}", d) for key, d in direction.items()}, state

    return Rule(name, {"std": as_hyper(std), "decay": as_hyper(decay)}, update, random=True, direct=True)
