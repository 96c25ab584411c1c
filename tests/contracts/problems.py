"""Inner problems for the contract of the hypergradient engines: networks, strategies and numbers of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbml import Episodes, Learner
from rbml.inner import Inner
from rbml.strategy import (
    Hyper,
    Scalar,
    Strategy,
    Term,
    TermInputs,
    adam,
    chain,
    cosine,
    l2,
    momentum,
    noise,
    prototype,
    sgd,
    weight_decay,
)
from rbml.strategy.base import Values
from rbml.tree import Tree

PERS = ("all", "layer", "tensor", "element")


class Problem(NamedTuple):
    """A network, a strategy with everything in it, T, whether its steps can be undone, and options of the learner."""

    net: str
    strategy: Callable[[], Strategy]
    steps: int
    undone: bool = False
    options: Mapping[str, Any] = {}


def full(per: str = "tensor", per_step: bool = True, nesterov: bool = False, terms: bool = True) -> Strategy:
    """Return l2, weight decay, momentum and SGD, every number learned."""
    parts = [
        l2(Hyper((0.1, 0.3), per=per, per_step=per_step, bounds=(0, None))),
        weight_decay(Hyper((0.1, 0.3), per=per, per_step=per_step)),
        momentum(Hyper((0.4, 0.7), per=per, per_step=per_step, bounds=(0, 1)), nesterov=nesterov),
        sgd(Hyper((0.05, 0.2), per=per, per_step=per_step, bounds=(None, 1.0))),
    ]
    return chain(*(parts if terms else parts[1:]))


def mixed() -> Strategy:
    """Return a chain in which every number has another granularity."""
    return chain(
        l2(Hyper(0.2, per="layer", bounds=(0, None))),
        weight_decay(Hyper(0.1, per_step=True)),
        momentum(Hyper(0.6, bounds=(0, 1)), nesterov=True),
        sgd(Hyper((0.05, 0.2), per="tensor", per_step=True, bounds=(0, None))),
    )


def gentle() -> Strategy:
    """Return small numbers: with batch norm, 20 large steps are chaotic, and no difference quotient is right there."""
    parts = [l2(Hyper(0.01)), weight_decay(Hyper(0.01)), momentum(Hyper(0.5), nesterov=True)]
    return chain(*parts, sgd(Hyper(0.02, per_step=True)))


def long(decay: float | Hyper = 0.9) -> Strategy:
    """Return a chain that can be undone, gentle enough for many steps."""
    return chain(weight_decay(Hyper(0.02)), momentum(decay), sgd(Hyper(0.02, per_step=True)), cosine(Hyper(0.1)))


def adaptive() -> Strategy:
    """Return Adam with everything learned, noise and all."""
    numbers = (Hyper(0.8, per="layer", bounds=(0, 1)), Hyper(0.9, bounds=(0, 1)), Hyper(0.3, bounds=(0, None)))
    return chain(weight_decay(Hyper(0.1, per="tensor")), adam(*numbers), sgd(Hyper(0.05, per_step=True)))


def anchored() -> Strategy:
    """Return a term that sees all a term may see: theta0 enters by the inner objective too."""

    def value(values: Values, scene: TermInputs) -> Tensor:
        theta, theta0, x, y, prediction = scene[:5]
        strengths = values["strength"]
        pull = torch.stack([(strengths[name] * (leaf - theta0[name]) ** 2).sum() for name, leaf in theta.items()]).sum()
        return pull + 0.1 * (prediction.logsumexp(1) * x.mean() * (y + 1)).mean()

    return chain(Term("anchor", {"strength": Hyper(0.5, per="tensor")}, value), sgd(Hyper(0.3, per_step=True)))


PROBLEMS = {
    **{f"mlp, {per}, {per_step}": Problem("mlp", lambda p=per, s=per_step: full(p, s), 5, True)  # type: ignore[misc]
       for per, per_step in product(PERS, (False, True))},
    "mlp, plain": Problem("mlp", lambda: chain(sgd(Hyper(0.3))), 1),
    "mlp, T=1": Problem("mlp", full, 1),
    "mlp, T=20": Problem("mlp", mixed, 20),
    "mlp, T=50": Problem("mlp", long, 50, True),
    "mlp, adam": Problem("mlp", adaptive, 7),
    "mlp, noise": Problem("mlp", lambda: chain(noise(Hyper(0.1)), momentum(Hyper(0.8)), sgd(Hyper(0.1))), 5, True),
    "mlp, every step counts": Problem("mlp", full, 4, True, {"step_weights": (0.1, 0.2, 0.3, 0.4)}),
    "mlp, prototypes": Problem("mlp", lambda: chain(prototype(Scalar(1.0)), full()), 3, True),
    "mlp, nesterov": Problem("mlp", lambda: full(nesterov=True), 5),
    "mlp, anchored": Problem("mlp", anchored, 3),
    "conv4, T=1": Problem("conv4", lambda: full("all"), 1),
    "conv4, stepwise": Problem("conv4", mixed, 2, False, {"stepwise": "*.norm.*", "step_weights": (0.3, 0.7)}),
    "conv4, adam": Problem("conv4", adaptive, 5),
    "conv4, T=5": Problem("conv4", mixed, 5),
    "conv4, element": Problem("conv4", lambda: full("element"), 2, True),
    "conv4, T=20": Problem("conv4", gentle, 20),
}  # fmt: skip

Make = Callable[[Problem], Learner]
Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]
Task = Callable[[Problem], tuple[Inner, Tree]]


def episodes_for(problem: Problem, pictures: Pictures) -> Episodes:
    return pictures(shape=(4,) if problem.net == "mlp" else (1, 12, 12))
