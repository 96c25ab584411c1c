"""Rules that limit the direction or add noise: clipping by norm, clipping by value, Gaussian noise."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.adaptive import root
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.draws import normal
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, tmap


@part
def clip_norm(limit: float | Hyper = 1.0, name: str = "clip_norm") -> Rule:
    r"""Limit the norm of the direction, as ``torch.nn.utils.clip_grad_norm_`` does.

    .. math:: d \leftarrow \min\left(1, \frac{\mathrm{limit}}{\|d\| + 10^{-6}}\right) d

    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063. The norm is Euclidean and taken over all adapted parameters,
    even if each of them has its own limit. As the first part of a chain it clips the gradient. A direction within the
    limit passes unchanged, and the derivative of the limit is then zero.

    Args:
        limit: the largest norm; learn it with ``Hyper(1.0, bounds=(0, None))``.
        name: the name of the part in the strategy.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        length = root(torch.stack([(leaf * leaf).sum() for leaf in direction.values()]).sum())
        return tmap(
            lambda d, limit: d * torch.clamp(limit / (length + 1e-6), max=1.0), direction, values["limit"]
        ), state

    return Rule(name, {"limit": as_hyper(limit)}, update, direct=True)


@part
def clip_value(limit: float | Hyper = 1.0, soft: bool = False, name: str = "clip_value") -> Rule:
    r"""Clip every element of the direction to the range from -limit to limit.

    .. math:: d \leftarrow \max(-\mathrm{limit}, \min(\mathrm{limit}, d))
              \quad (\text{soft: } \mathrm{limit} \cdot \tanh(d / \mathrm{limit}))

    As ``torch.nn.utils.clip_grad_value_``. The derivative of a clipped element is zero, so that the hypergradient sees
    nothing of the parts before this one through it. The soft form (ours) keeps a small derivative, at the price of
    changing the elements within the limit slightly.

    Args:
        limit: the largest absolute value, above zero; learn it with ``Hyper(1.0, bounds=(0, None))``.
        soft: whether to clip smoothly, by tanh.
        name: the name of the part in the strategy.
    """

    def clipped(d: Tensor, limit: Tensor) -> Tensor:
        return limit * torch.tanh(d / limit) if soft else torch.clamp(d, -limit, limit)

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(clipped, direction, values["limit"]), state

    return Rule(name, {"limit": as_hyper(limit)}, update, direct=True)


@part
def noise(std: float | Hyper = 0.1, decay: float | Hyper = 0.55, name: str = "noise") -> Rule:
    r"""Add Gaussian noise that decreases over the steps.

    .. math:: d \leftarrow d + \frac{\mathrm{std}}{(1 + t)^{\mathrm{decay} / 2}}\, n, \qquad n \sim \mathcal{N}(0, I)

    Source: Neelakantan et al. 2015, arXiv:1511.06807, whose eta is std squared (0.01, 0.3 or 1) and whose gamma is the
    decay. As the first part of a chain it adds noise to the gradient. The noise is a function of the task's key, the
    step and the parameter's name (:func:`rbml.strategy.normal`), so that an engine that evaluates a step twice sees the
    same noise. Derivatives are taken for the noise that was drawn.

    Args:
        std: the standard deviation at the first step.
        decay: how fast the variance decreases; with 0 it is the same at every step.
        name: the name of the part in the strategy; two parts with different names draw different noise.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        stds = tmap(lambda std, decay: std * (1.0 + at.time) ** (-0.5 * decay), values["std"], values["decay"])
        return {key: d + stds[key] * normal(at, f"{name}/{key}", d) for key, d in direction.items()}, state

    return Rule(name, {"std": as_hyper(std), "decay": as_hyper(decay)}, update, random=True, direct=True)
