r"""Rules that scale the direction by a factor that depends on the step: learning-rate schedules of the inner loop.

They come after the learning rate: ``chain(momentum(0.9), sgd(0.1), cosine())``. Several multiply:
``sgd(0.1), warmup(5), cosine()`` (where ``SequentialLR`` would start the cosine after the warm-up). t is the step from
0, T the learner's number of steps; a schedule that ends stays where it ended, also where more steps are taken. A
constant factor is :func:`rbml.strategy.sgd` itself, a free factor for every step is ``sgd(Hyper(0.1, per_step=True))``.
None has a state, and a factor costs one multiplication an element.
"""

from __future__ import annotations

import bisect
import math

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Rule, StepInfo, Values, part
from rbml.strategy.hyper import Hyper, as_hyper
from rbml.strategy.weights import Weights
from rbml.tree import Step, Tree, row, tmap


def progress(at: StepInfo) -> float | Tensor:
    """Return which share of the steps has been taken, from 0 to 1."""
    return at_most_one(at.time / max(at.steps, 1))


def at_most_one(share: float | Tensor) -> float | Tensor:
    """Return a share, or 1 where it is more."""
    return share.clamp(max=1.0) if isinstance(share, Tensor) else min(share, 1.0)


@part
def cosine(floor: float | Hyper = 0.0, name: str = "cosine") -> Rule:
    r"""Let the step fall along half a cosine.

    .. math:: d \leftarrow \left(\mathrm{floor} + (1 - \mathrm{floor})\, \tfrac12 (1 + \cos(\pi t / T))\right) d

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts; ``CosineAnnealingLR(T_max=T)`` with
    ``eta_min = floor * lr``. The floor would be reached at step T, one after the last.

    Args:
        floor: what it falls to, as a share of the start.
        name: what it is filed under.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        share = math.pi * progress(at)
        height = 0.5 * (1 + (torch.cos(share) if isinstance(share, Tensor) else math.cos(share)))
        return tmap(lambda d, floor: d * (floor + (1 - floor) * height), direction, values["floor"]), state

    return Rule(name, {"floor": as_hyper(floor)}, update, direct=True)


@part
def polynomial(power: float | Hyper = 1.0, floor: float | Hyper = 0.0, name: str = "polynomial") -> Rule:
    r"""Let the step fall along a power of what is left of the steps; the power 1 is a line.

    .. math:: d \leftarrow \left(\mathrm{floor} + (1 - \mathrm{floor})\, (1 - t / T)^{\mathrm{power}}\right) d

    ``PolynomialLR(total_iters=T)`` where the floor is 0, ``LinearLR(1, floor, total_iters=T)`` where the power is 1.
    The floor would be reached at step T, one after the last.

    Args:
        power: how soon it falls; above zero.
        floor: what it falls to, as a share of the start.
        name: what it is filed under.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        left = 1 - progress(at)

        def scaled(d: Tensor, power: Tensor, floor: Tensor) -> Tensor:
            return d * (floor + (1 - floor) * left**power)

        return tmap(scaled, direction, values["power"], values["floor"]), state

    return Rule(name, {"power": as_hyper(power), "floor": as_hyper(floor)}, update, direct=True)


@part
def exponential(gamma: float | Hyper = 0.9, every: int = 1, name: str = "exponential") -> Rule:
    r"""Multiply the step by a constant factor again and again.

    .. math:: d \leftarrow \mathrm{gamma}^{\lfloor t / \mathrm{every} \rfloor}\, d

    ``ExponentialLR``; with ``every`` above 1, ``StepLR``. T does not enter. Where gamma has a value a step, it is
    the power of this step's value, not a product.

    Args:
        gamma: the factor.
        every: how many steps lie between two multiplications.
        name: what it is filed under.

    Raises:
        UsageError: if ``every`` is below 1.
    """
    if every < 1:
        raise UsageError(f"every counts the steps between two multiplications and must be at least 1, not {every}")

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(lambda d, gamma: d * gamma ** (at.t // every), direction, values["gamma"]), state

    return Rule(name, {"gamma": as_hyper(gamma)}, update, direct=True)


@part
def inverse_time(rate: float | Hyper = 0.1, name: str = "inverse_time") -> Rule:
    r"""Let the step fall as one over time.

    .. math:: d \leftarrow \frac{d}{1 + \mathrm{rate} \cdot t}

    Source: Robbins and Monro 1951 in kind; the ``lr_decay`` of ``torch.optim.Adagrad``. T does not enter.

    Args:
        rate: how soon it falls; not negative. The step is halved at t = 1 / rate.
        name: what it is filed under.
    """

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return tmap(lambda d, rate: d / (1 + rate * at.time), direction, values["rate"]), state

    return Rule(name, {"rate": as_hyper(rate)}, update, direct=True)


@part
def warmup(steps: int = 5, start: float | Hyper = 0.1, name: str = "warmup") -> Rule:
    r"""Let the step grow along a line to its full size.

    .. math:: d \leftarrow \left(\mathrm{start} + (1 - \mathrm{start}) \min(t / \mathrm{steps}, 1)\right) d

    Source: Goyal et al. 2017, arXiv:1706.02677 (gradual warm-up); ``LinearLR(start, 1, total_iters=steps)``.

    Args:
        steps: at which step it is full.
        start: what it begins with, as a share of the full size.
        name: what it is filed under.

    Raises:
        UsageError: if ``steps`` is below 1.
    """
    if steps < 1:
        raise UsageError(f"a warm-up takes at least 1 step, not {steps}: leave it out to start at full size")

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
    r"""Give each stretch of the steps a factor of its own.

    .. math:: d \leftarrow \mathrm{values}_k\, d, \qquad k = \#\{b \in \mathrm{boundaries}: b \le t\}

    ``MultiStepLR`` where the values are powers of one gamma. All parameters share the values.

    Args:
        values: a factor for each stretch.
        boundaries: the step at which each stretch after the first begins; the default is stretches of equal length.
        learn: whether the values are learned.
        name: what it is filed under.

    Raises:
        UsageError: if there is no value, or the boundaries are not one fewer and rising.
    """
    if not values:
        raise UsageError("piecewise needs at least one value, such as piecewise((1.0, 0.1))")
    if boundaries is not None and (len(boundaries) != len(values) - 1 or list(boundaries) != sorted(set(boundaries))):
        raise UsageError(
            f"{len(values)} values need {len(values) - 1} rising boundaries between them, not {boundaries}"
        )

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        like = next(iter(theta.values()))
        return {"factors": torch.tensor(list(values), dtype=like.dtype, device=like.device)}

    def stretch(at: StepInfo) -> Step:
        if boundaries is None:
            place = progress(at) * len(values)
            return place.long() if isinstance(place, Tensor) else int(place)
        if isinstance(at.t, int):
            return bisect.bisect_right(boundaries, at.t)
        return (at.t >= torch.tensor(boundaries, device=at.t.device)).sum()

    def update(direction: Tree, state: Tree, theta: Tree, numbers: Values, at: StepInfo) -> tuple[Tree, Tree]:
        factor = row(numbers["values"]["factors"], stretch(at))
        return tmap(lambda d: d * factor, direction), state

    return Rule(name, {"values": Weights(start, learn)}, update, direct=True)
