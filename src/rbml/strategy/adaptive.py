r"""Rules that scale every element of the direction by its own history: RMSProp, Adagrad, Adam, NAdam, Lion.

They set no learning rate: ``chain(adam(), sgd(1e-3))`` is ``torch.optim.Adam``. What comes before them in the chain
they see, what comes after they do not: ``chain(weight_decay(1e-2), adam(), sgd(1e-3))`` is Adam with coupled decay,
``chain(adam(), weight_decay(1e-2), sgd(1e-3))`` is AdamW, and ``chain(rmsprop(), momentum(0.9), sgd(1e-2))`` is RMSprop
with momentum. In float64 each follows its like in ``torch.optim`` step for step, to rounding.

Where a squared gradient is exactly zero its square root has an infinite derivative; here it counts as zero, which is
the right limit for the whole direction. Near zero the derivative of a direction by the gradient is up to 1 / eps, hence
``eps`` must not be zero, and a large one (1e-3) makes hypergradients much calmer than the 1e-8 of the papers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.base import Rule, StepInfo, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.tree import Tree, prefixed, tmap, under, zeros_like


def root(square: Tensor) -> Tensor:
    """Return the square root with derivative zero at zero; where rounding made a square negative it is zero too."""
    positive = square > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, square, 1.0)), 0.0)


def _averaged(old: Tensor, new: Tensor, decay: Tensor) -> Tensor:
    return decay * old + (1 - decay) * new


def _averaged_square(old: Tensor, new: Tensor, decay: Tensor) -> Tensor:
    return decay * old + (1 - decay) * new * new


def _zeros(theta: Tree, *names: str) -> Tree:
    """Return an empty state: zeros like theta under each of the names."""
    return {key: leaf for name in names for key, leaf in prefixed(zeros_like(theta), f"{name}/").items()}


@part
def rmsprop(
    alpha: float | Hyper = 0.99, eps: float | Hyper = 1e-8, centered: bool = False, name: str = "rmsprop"
) -> Rule:
    r"""Divide the direction by a running root mean square of it, as ``torch.optim.RMSprop`` does.

    .. math:: v \leftarrow \alpha v + (1 - \alpha)\, d^2, \qquad d \leftarrow \frac{d}{\sqrt v + \mathrm{eps}}
              \quad (\text{centred: } \sqrt{v - m^2}, \; m \leftarrow \alpha m + (1 - \alpha)\, d)

    Source: Tieleman and Hinton 2012; centred: Graves 2013, arXiv:1308.0850. Momentum comes after it in the chain, as in
    PyTorch. Centred, where rounding makes v - m^2 negative PyTorch gives nan; here it counts as zero. State: one or two
    tensors like theta.

    Args:
        alpha: how much of the mean is kept a step; learn it with ``Hyper(0.99, bounds=(0, 1))``.
        eps: what is added to the root, above zero.
        centered: whether the running mean is taken off first.
        name: what it is filed under.
    """

    def init(theta: Tree) -> Tree:
        return _zeros(theta, "square", "mean") if centered else _zeros(theta, "square")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        squares = tmap(_averaged_square, under(state, "square/"), direction, values["alpha"])
        after, spread = prefixed(squares, "square/"), squares
        if centered:
            means = tmap(_averaged, under(state, "mean/"), direction, values["alpha"])
            spread = tmap(lambda v, m: v - m * m, squares, means)
            after |= prefixed(means, "mean/")
        return tmap(lambda d, v, eps: d / (root(v) + eps), direction, spread, values["eps"]), after

    return Rule(name, {"alpha": as_hyper(alpha), "eps": as_hyper(eps)}, update, init)


@part
def adagrad(start: float | Hyper = 0.0, eps: float | Hyper = 1e-10, name: str = "adagrad") -> Rule:
    r"""Divide the direction by the root of the sum of its squares, as ``torch.optim.Adagrad`` does.

    .. math:: v \leftarrow v + d^2, \qquad d \leftarrow \frac{d}{\sqrt{\mathrm{start} + v} + \mathrm{eps}}

    Source: Duchi, Hazan, Singer 2011. PyTorch's ``lr_decay`` is :func:`rbml.strategy.inverse_time` after
    :func:`rbml.strategy.sgd`. State: one tensor like theta.

    Args:
        start: what the sum begins with, PyTorch's ``initial_accumulator_value``; not negative.
        eps: what is added to the root, above zero.
        name: what it is filed under.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        sums = tmap(lambda v, d: v + d * d, state, direction)
        scaled = tmap(
            lambda d, v, start, eps: d / (root(start + v) + eps), direction, sums, values["start"], values["eps"]
        )
        return scaled, sums

    return Rule(name, {"start": as_hyper(start), "eps": as_hyper(eps)}, update, zeros_like)


@part
def adam(
    beta1: float | Hyper = 0.9,
    beta2: float | Hyper = 0.999,
    eps: float | Hyper = 1e-8,
    amsgrad: bool = False,
    name: str = "adam",
) -> Rule:
    r"""Replace the direction by its running mean over its running root mean square, as ``torch.optim.Adam`` does.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1)\, d, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, d^2, \qquad
              d \leftarrow \frac{m / (1 - \beta_1^{t+1})}{\sqrt{v / (1 - \beta_2^{t+1})} + \mathrm{eps}}

    Source: Kingma and Ba 2015, arXiv:1412.6980. AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) is
    ``chain(adam(), weight_decay(1e-2), sgd(1e-3))``. Where a beta has a value a step, the correction of the bias takes
    that step's value for all steps so far, which is then not exact. State: two tensors like theta (AMSGrad: three).

    Args:
        beta1: how much of the mean is kept a step; learn it with ``Hyper(0.9, bounds=(0, 1))``.
        beta2: how much of the mean square is kept a step, below 1.
        eps: what is added to the root, above zero.
        amsgrad: divide by the largest v so far (Reddi et al. 2018, arXiv:1904.09237).
        name: what it is filed under.
    """

    def init(theta: Tree) -> Tree:
        return _zeros(theta, "mean", "square", "largest") if amsgrad else _zeros(theta, "mean", "square")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        beta1, beta2, t = values["beta1"], values["beta2"], at.time + 1
        means = tmap(_averaged, under(state, "mean/"), direction, beta1)
        squares = tmap(_averaged_square, under(state, "square/"), direction, beta2)
        after, below = prefixed(means, "mean/") | prefixed(squares, "square/"), squares
        if amsgrad:
            below = tmap(torch.maximum, under(state, "largest/"), squares)
            after |= prefixed(below, "largest/")

        def scaled(m: Tensor, v: Tensor, beta1: Tensor, beta2: Tensor, eps: Tensor) -> Tensor:
            return m / (1 - beta1**t) / (root(v) / torch.sqrt(1 - beta2**t) + eps)

        return tmap(scaled, means, below, beta1, beta2, values["eps"]), after

    return Rule(name, {"beta1": as_hyper(beta1), "beta2": as_hyper(beta2), "eps": as_hyper(eps)}, update, init)


@part
def nadam(
    beta1: float | Hyper = 0.9,
    beta2: float | Hyper = 0.999,
    eps: float | Hyper = 1e-8,
    momentum_decay: float | Hyper = 4e-3,
    name: str = "nadam",
) -> Rule:
    r"""Scale as Adam does, with Nesterov's look ahead, as ``torch.optim.NAdam`` does.

    .. math:: \mu_t = \beta_1 (1 - \tfrac12\, 0.96^{(t+1)\,\mathrm{decay}}), \qquad
              d \leftarrow \frac{\frac{1 - \mu_t}{1 - \prod_{i \le t} \mu_i}\, d
              + \frac{\mu_{t+1}}{1 - \prod_{i \le t+1} \mu_i}\, m}{\sqrt{v / (1 - \beta_2^{t+1})} + \mathrm{eps}}

    with m and v of :func:`adam`, t from 0. Source: Dozat 2016, "Incorporating Nesterov momentum into Adam". PyTorch's
    ``decoupled_weight_decay`` is a :func:`rbml.strategy.weight_decay` after it. State: three tensors like theta, one of
    them the product of the mu so far. As in :func:`adam`, a beta2 with a value a step corrects the bias with that
    step's value alone.

    Args:
        beta1: how much of the mean is kept a step; learn it with ``Hyper(0.9, bounds=(0, 1))``.
        beta2: how much of the mean square is kept a step, below 1.
        eps: what is added to the root, above zero.
        momentum_decay: how fast mu grows to beta1; not negative.
        name: what it is filed under.
    """

    def init(theta: Tree) -> Tree:
        return _zeros(theta, "mean", "square") | prefixed(tmap(torch.ones_like, theta), "product/")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        beta1, beta2, decay = values["beta1"], values["beta2"], values["momentum_decay"]
        means = tmap(_averaged, under(state, "mean/"), direction, beta1)
        squares = tmap(_averaged_square, under(state, "square/"), direction, beta2)
        now, ahead = (tmap(lambda b, k, t=at.time + i: b * (1 - 0.5 * 0.96 ** (t * k)), beta1, decay) for i in (1, 2))
        products = tmap(torch.mul, under(state, "product/"), now)

        def weighted(d: Tensor, m: Tensor, mu: Tensor, next_mu: Tensor, product: Tensor) -> Tensor:
            return (1 - mu) / (1 - product) * d + next_mu / (1 - product * next_mu) * m

        def scaled(d: Tensor, v: Tensor, beta2: Tensor, eps: Tensor) -> Tensor:
            return d / (root(v / (1 - beta2 ** (at.time + 1))) + eps)

        mixed = tmap(weighted, direction, means, now, ahead, products)
        after = prefixed(means, "mean/") | prefixed(squares, "square/") | prefixed(products, "product/")
        return tmap(scaled, mixed, squares, beta2, values["eps"]), after

    numbers = {"beta1": beta1, "beta2": beta2, "eps": eps, "momentum_decay": momentum_decay}
    return Rule(name, {key: as_hyper(number) for key, number in numbers.items()}, update, init)


@part
def lion(
    beta1: float | Hyper = 0.9, beta2: float | Hyper = 0.99, width: float | Hyper = 0.0, name: str = "lion"
) -> Rule:
    r"""Replace the direction by the sign of a mean of it and its running mean.

    .. math:: c = \beta_1 m + (1 - \beta_1)\, d, \qquad m \leftarrow \beta_2 m + (1 - \beta_2)\, d, \qquad
              d \leftarrow \mathrm{sign}(c) \quad
              (\text{with a width: } \frac{c}{\sqrt{c^2 + \mathrm{width}^2}})

    Source: Chen et al. 2023, arXiv:2302.06675; its decay is ``chain(lion(), weight_decay(0.1), sgd(1e-4))``. State: one
    tensor like theta.

    A sign has the derivative zero: with width 0, as in the paper, a derivative finds nothing to learn in the betas, and
    theta0 is seen as by a first-order method. That zero is exact, but not what a finite change would do; give a width
    (our addition, on the scale of the gradients), or an engine without derivatives. A width of 0 stays 0.

    Args:
        beta1: how much of the running mean goes into the sign.
        beta2: how much of the running mean is kept a step.
        width: how far from zero the sign is smooth; 0 is Lion itself.
        name: what it is filed under.
    """

    def sign(c: Tensor, width: Tensor) -> Tensor:
        sharp = width == 0
        smooth = c * torch.rsqrt(torch.where(sharp, 1.0, c * c + width * width))
        return torch.where(sharp, torch.sign(c), smooth)

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        mixed = tmap(_averaged, state, direction, values["beta1"])
        return tmap(sign, mixed, values["width"]), tmap(_averaged, state, direction, values["beta2"])

    numbers = {"beta1": beta1, "beta2": beta2, "width": width}
    return Rule(name, {key: as_hyper(number) for key, number in numbers.items()}, update, zeros_like)
