r"""Learning-rate schedules of the inner loop: rules that scale the direction by a factor that depends on the step.

They come after the learning rate: ``chain(momentum(0.9), sgd(0.1), cosine())``. Several schedules multiply:
``sgd(0.1), warmup(5), cosine()`` (``SequentialLR`` would start the cosine only after the warm-up). t is the step,
counted from 0, and T the learner's number of steps. A schedule that has ended keeps its last value, also if more than T
steps are taken. For a constant factor use :func:`rbml.strategy.sgd`, for an independent factor at every step
``sgd(Hyper(0.1, per_step=True))``. Schedules have no state and cost one multiplication per element.
"""

from __future__ import annotations

import bisect
import math

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.views import StepInfo
from rbml.strategy.weights import Weights
from rbml.tree import Step, Tree, row, tmap


def progress(at: StepInfo) -> float | Tensor:
    """Return the fraction of the steps that has been taken, from 0 to 1."""
    return at_most_one(at.time / max(at.steps, 1))


def at_most_one(share: float | Tensor) -> float | Tensor:
    """Return a fraction, limited to 1."""
    return share.clamp(max=1.0) if isinstance(share, Tensor) else min(share, 1.0)


@part
def cosine(floor: float | Hyper = 0.0, name: str = "cosine") -> Rule:
    r"""Decrease the step along half a cosine.

    .. math:: d \leftarrow \left(\mathrm{floor} + (1 - \mathrm{floor})\, \tfrac12 (1 + \cos(\pi t / T))\right) d

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts; ``CosineAnnealingLR(T_max=T)`` with
    ``eta_min = floor * lr``. It would reach the floor at step T, one step after the last.

    Args:
        floor: the final value, as a fraction of the initial one.
        name: the name of the part in the strategy.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        share = math.pi * progress(at)  # a tensor if one traced step serves all t
        height = 0.5 * (1 + (torch.cos(share) if isinstance(share, Tensor) else math.cos(share)))
        return tmap(lambda d, floor: d * (floor + (1 - floor) * height), direction, values["floor"]), state

    return Rule(name, {"floor": as_hyper(floor)}, update, direct=True)


@part
def polynomial(power: float | Hyper = 1.0, floor: float | Hyper = 0.0, name: str = "polynomial") -> Rule:
    r"""Decrease the step as a power of the remaining fraction of the steps; a power of 1 is linear.

    .. math:: d \leftarrow \left(\mathrm{floor} + (1 - \mathrm{floor})\, (1 - t / T)^{\mathrm{power}}\right) d

    Equals ``PolynomialLR(total_iters=T)`` if the floor is 0 and ``LinearLR(1, floor, total_iters=T)`` if the power is
    1. It would reach the floor at step T, one step after the last.

    Args:
        power: the exponent, above zero; a larger one decreases the step earlier.
        floor: the final value, as a fraction of the initial one.
        name: the name of the part in the strategy.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        left = 1 - progress(at)

        def scaled(d: Tensor, power: Tensor, floor: Tensor) -> Tensor:
            return d * (floor + (1 - floor) * left**power)

        return tmap(scaled, direction, values["power"], values["floor"]), state

    return Rule(name, {"power": as_hyper(power), "floor": as_hyper(floor)}, update, direct=True)


@part
def exponential(gamma: float | Hyper = 0.9, every: int = 1, name: str = "exponential") -> Rule:
    r"""Multiply the step by the same factor every so many steps.

    .. math:: d \leftarrow \mathrm{gamma}^{\lfloor t / \mathrm{every} \rfloor}\, d

    Equals ``ExponentialLR``, or ``StepLR`` if ``every`` is above 1. It does not depend on T. If gamma has one value per
    step, the factor is the power of the current step's value, not a product of the values so far.

    Args:
        gamma: the factor.
        every: the number of steps from one multiplication to the next.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if ``every`` is below 1.
    """
    if every < 1:
        raise UsageError(f"every, the number of steps between two multiplications, must be at least 1, not {every}")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(lambda d, gamma: d * gamma ** (at.t // every), direction, values["gamma"]), state

    return Rule(name, {"gamma": as_hyper(gamma)}, update, direct=True)


@part
def inverse_time(rate: float | Hyper = 0.1, name: str = "inverse_time") -> Rule:
    r"""Decrease the step in inverse proportion to time.

    .. math:: d \leftarrow \frac{d}{1 + \mathrm{rate} \cdot t}

    Source: in the spirit of Robbins and Monro 1951; the ``lr_decay`` of ``torch.optim.Adagrad``. It does not depend on
    T.

    Args:
        rate: how fast the step decreases; not negative. It is halved at t = 1 / rate.
        name: the name of the part in the strategy.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(lambda d, rate: d / (1 + rate * at.time), direction, values["rate"]), state

    return Rule(name, {"rate": as_hyper(rate)}, update, direct=True)


@part
def warmup(steps: int = 5, start: float | Hyper = 0.1, name: str = "warmup") -> Rule:
    r"""Increase the step linearly to its full size.

    .. math:: d \leftarrow \left(\mathrm{start} + (1 - \mathrm{start}) \min(t / \mathrm{steps}, 1)\right) d

    Source: Goyal et al. 2017, arXiv:1706.02677 (gradual warm-up); ``LinearLR(start, 1, total_iters=steps)``.

    Args:
        steps: the step at which the full size is reached.
        start: the initial value, as a fraction of the full size.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if ``steps`` is below 1.
    """
    if steps < 1:
        raise UsageError(f"a warm-up needs at least 1 step, not {steps}: leave it out to start at full size")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        share = at_most_one(at.time / steps)
        return tmap(lambda d, start: d * (start + (1 - start) * share), direction, values["start"]), state

    return Rule(name, {"start": as_hyper(start)}, update, direct=True)


@part
def piecewise(
    values: tuple[float, ...] = (1.0, 0.1, 0.01),
    boundaries: tuple[int, ...] | None = None,
    learn: bool = False,
    name: str = "piecewise",
) -> Rule:
    r"""Use a different constant factor in each interval of the steps.

    .. math:: d \leftarrow \mathrm{values}_k\, d, \qquad k = \#\{b \in \mathrm{boundaries}: b \le t\}

    Equals ``MultiStepLR`` if the values are powers of one gamma. All parameters share the values.

    Args:
        values: the factor of each interval.
        boundaries: the first step of each interval but the first; by default all intervals are equally long.
        learn: whether the values are learned.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if there is no value, or the boundaries do not increase or are not one fewer than the values.
    """
    if not values:
        raise UsageError("piecewise needs at least one value, such as piecewise((1.0, 0.1))")
    if boundaries is not None and (len(boundaries) != len(values) - 1 or list(boundaries) != sorted(set(boundaries))):
        raise UsageError(
            f"{len(values)} values need {len(values) - 1} increasing boundaries between them, not {boundaries}"
        )

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        like = next(iter(theta.values()))
        return {"factors": torch.tensor(list(values), dtype=like.dtype, device=like.device)}

    def interval(at: StepInfo) -> Step:
        if boundaries is None:
            place = progress(at) * len(values)
            return place.long() if isinstance(place, Tensor) else int(place)
        if isinstance(at.t, int):
            return bisect.bisect_right(boundaries, at.t)
        # The same as bisect_right, without reading the value of t.
        return (at.t >= torch.tensor(boundaries, device=at.t.device)).sum()

    def update(direction: Tree, state: Tree, theta: Tree, numbers: Values, at: StepInfo) -> tuple[Tree, Tree]:
        factor = row(numbers["values"]["factors"], interval(at))  # `row` takes the last one beyond the last step
        return tmap(lambda d: d * factor, direction), state

    return Rule(name, {"values": Weights(start, learn)}, update, direct=True)
