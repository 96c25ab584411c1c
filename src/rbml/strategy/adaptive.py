r"""Rules that scale every element of the direction by its own history: RMSProp, Adagrad, Adam, NAdam, Lion.

They do not set a learning rate: ``chain(adam(), sgd(1e-3))`` is ``torch.optim.Adam``. A rule sees the effect of the
parts before it in the chain, but not of those after it: ``chain(weight_decay(1e-2), adam(), sgd(1e-3))`` is Adam with
coupled decay, ``chain(adam(), weight_decay(1e-2), sgd(1e-3))`` is AdamW, and ``chain(rmsprop(), momentum(0.9),
sgd(1e-2))`` is RMSprop with momentum. In float64 each rule matches its counterpart in ``torch.optim`` at every step, up
to rounding.

The square root has an infinite derivative where a squared gradient is exactly zero. Here that derivative counts as
zero, which is the right limit for the whole direction. Close to zero the derivative of the direction with respect to
the gradient can reach 1 / eps. So ``eps`` must not be zero, and a large value (1e-3) gives much better behaved
hypergradients than the 1e-8 of the papers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.base import Rule, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.tree import Tree, prefixed, tmap, under, zeros_like


def root(square: Tensor) -> Tensor:
    """Return the square root, with derivative zero at zero; a square that rounding made negative gives zero."""
    # The inner `where` is needed too: autograd would otherwise multiply the infinite slope at 0 by 0 and return nan.
    positive = square > 0
    return torch.where(positive, torch.sqrt(torch.where(positive, square, 1.0)), 0.0)


def _moving_mean(old: Tensor, new: Tensor, decay: Tensor) -> Tensor:
    return decay * old + (1 - decay) * new


def _moving_mean_square(old: Tensor, new: Tensor, decay: Tensor) -> Tensor:
    return decay * old + (1 - decay) * new * new


def _zero_state(theta: Tree, *names: str) -> Tree:
    """Return the state before the first step: zeros shaped like theta under each of the names."""
    return {key: leaf for name in names for key, leaf in prefixed(zeros_like(theta), f"{name}/").items()}


@part
def rmsprop(
    alpha: float | Hyper = 0.99, eps: float | Hyper = 1e-8, centered: bool = False, name: str = "rmsprop"
) -> Rule:
    r"""Divide the direction by its running root mean square, as ``torch.optim.RMSprop`` does.

    .. math:: v \leftarrow \alpha v + (1 - \alpha)\, d^2, \qquad d \leftarrow \frac{d}{\sqrt v + \mathrm{eps}}
              \quad (\text{centred: } \sqrt{v - m^2}, \; m \leftarrow \alpha m + (1 - \alpha)\, d)

    Source: Tieleman and Hinton 2012; centred: Graves 2013, arXiv:1308.0850. Momentum comes after it in the chain, as in
    PyTorch. In the centred form rounding can make v - m^2 negative; PyTorch then returns nan, here it counts as zero.
    State: one tensor like theta, or two if centred.

    Args:
        alpha: the fraction of the running mean kept at each step; learn it with ``Hyper(0.99, bounds=(0, 1))``.
        eps: a positive constant added to the root.
        centered: whether to subtract the square of the running mean.
        name: the name of the part in the strategy.
    """

    def init(theta: Tree) -> Tree:
        return _zero_state(theta, "square", "mean") if centered else _zero_state(theta, "square")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        squares = tmap(_moving_mean_square, under(state, "square/"), direction, values["alpha"])
        # `spread` is what the root is taken of: the mean square, or the variance if centred.
        after, spread = prefixed(squares, "square/"), squares
        if centered:
            means = tmap(_moving_mean, under(state, "mean/"), direction, values["alpha"])
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
        start: the initial value of the sum, PyTorch's ``initial_accumulator_value``; not negative.
        eps: a positive constant added to the root.
        name: the name of the part in the strategy.
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
    r"""Replace the direction by its running mean divided by its running root mean square, as ``torch.optim.Adam`` does.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1)\, d, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, d^2, \qquad
              d \leftarrow \frac{m / (1 - \beta_1^{t+1})}{\sqrt{v / (1 - \beta_2^{t+1})} + \mathrm{eps}}

    Source: Kingma and Ba 2015, arXiv:1412.6980. AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) is
    ``chain(adam(), weight_decay(1e-2), sgd(1e-3))``. If a beta has one value per step, the bias correction uses the
    current step's value for all steps so far and is then not exact. State: two tensors like theta (AMSGrad: three).

    Args:
        beta1: the fraction of the mean kept at each step; learn it with ``Hyper(0.9, bounds=(0, 1))``.
        beta2: the fraction of the mean square kept at each step, below 1.
        eps: a positive constant added to the root.
        amsgrad: whether to divide by the largest v so far (Reddi et al. 2018, arXiv:1904.09237).
        name: the name of the part in the strategy.
    """

    def init(theta: Tree) -> Tree:
        return _zero_state(theta, "mean", "square", "largest") if amsgrad else _zero_state(theta, "mean", "square")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        beta1, beta2, t = values["beta1"], values["beta2"], at.time + 1
        means = tmap(_moving_mean, under(state, "mean/"), direction, beta1)
        squares = tmap(_moving_mean_square, under(state, "square/"), direction, beta2)
        after, below = prefixed(means, "mean/") | prefixed(squares, "square/"), squares
        if amsgrad:
            below = tmap(torch.maximum, under(state, "largest/"), squares)
            after |= prefixed(below, "largest/")

        def scaled(m: Tensor, v: Tensor, beta1: Tensor, beta2: Tensor, eps: Tensor) -> Tensor:
            # As in PyTorch, eps is added after the bias correction and outside the root.
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
    r"""Scale as Adam does, with Nesterov's look-ahead, as ``torch.optim.NAdam`` does.

    .. math:: \mu_t = \beta_1 (1 - \tfrac12\, 0.96^{(t+1)\,\mathrm{decay}}), \qquad
              d \leftarrow \frac{\frac{1 - \mu_t}{1 - \prod_{i \le t} \mu_i}\, d
              + \frac{\mu_{t+1}}{1 - \prod_{i \le t+1} \mu_i}\, m}{\sqrt{v / (1 - \beta_2^{t+1})} + \mathrm{eps}}

    with m and v as in :func:`adam` and t counted from 0. Source: Dozat 2016, "Incorporating Nesterov momentum into
    Adam". PyTorch's ``decoupled_weight_decay`` is a :func:`rbml.strategy.weight_decay` after it. State: three tensors
    like theta, one of them the product of all mu so far. As in :func:`adam`, a beta2 with one value per step makes the
    bias correction inexact: it uses the current step's value alone.

    Args:
        beta1: the fraction of the mean kept at each step; learn it with ``Hyper(0.9, bounds=(0, 1))``.
        beta2: the fraction of the mean square kept at each step, below 1.
        eps: a positive constant added to the root.
        momentum_decay: how fast mu grows towards beta1; not negative.
        name: the name of the part in the strategy.
    """

    def init(theta: Tree) -> Tree:
        return _zero_state(theta, "mean", "square") | prefixed(tmap(torch.ones_like, theta), "product/")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        beta1, beta2, decay = values["beta1"], values["beta2"], values["momentum_decay"]
        means = tmap(_moving_mean, under(state, "mean/"), direction, beta1)
        squares = tmap(_moving_mean_square, under(state, "square/"), direction, beta2)
        now, ahead = (tmap(lambda b, k, t=at.time + i: b * (1 - 0.5 * 0.96 ** (t * k)), beta1, decay) for i in (1, 2))
        # mu changes from step to step, so the bias correction needs the product of all mu, not a power of one.
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
    r"""Replace the direction by the sign of a weighted mean of the direction and its running mean.

    .. math:: c = \beta_1 m + (1 - \beta_1)\, d, \qquad m \leftarrow \beta_2 m + (1 - \beta_2)\, d, \qquad
              d \leftarrow \mathrm{sign}(c) \quad
              (\text{with a width: } \frac{c}{\sqrt{c^2 + \mathrm{width}^2}})

    Source: Chen et al. 2023, arXiv:2302.06675; with its weight decay: ``chain(lion(), weight_decay(0.1), sgd(1e-4))``.
    State: one tensor like theta.

    The derivative of the sign is zero. With width 0, as in the paper, the hypergradient of the betas is therefore zero,
    and that of theta0 is a first-order one. These values are exact, but they do not predict the effect of a finite
    change. To learn the betas, set a width (our addition; on the scale of the gradients) or use an engine that takes no
    derivatives. A width of 0 cannot be learned: its derivative is zero too.

    Args:
        beta1: the weight of the running mean inside the sign.
        beta2: the fraction of the running mean kept at each step.
        width: the distance from zero within which the sign is smooth; 0 is Lion itself.
        name: the name of the part in the strategy.
    """

    def sign(c: Tensor, width: Tensor) -> Tensor:
        # rsqrt of c * c has an infinite derivative at c = 0; replacing its argument by 1 keeps nan out of the gradient.
        sharp = width == 0
        smooth = c * torch.rsqrt(torch.where(sharp, 1.0, c * c + width * width))
        return torch.where(sharp, torch.sign(c), smooth)

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        mixed = tmap(_moving_mean, state, direction, values["beta1"])
        return tmap(sign, mixed, values["width"]), tmap(_moving_mean, state, direction, values["beta2"])

    numbers = {"beta1": beta1, "beta2": beta2, "width": width}
    return Rule(name, {key: as_hyper(number) for key, number in numbers.items()}, update, zeros_like)
