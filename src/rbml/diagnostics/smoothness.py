"""Is a gradient useful here at all? How smooth the outer loss is along the hypergradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbml.devices import placed
from rbml.inner import roll
from rbml.learner import Learner
from rbml.tasks.base import count, one
from rbml.tree import Tree, add, norm, scale

ROUGH = 0.9
"""Below this smoothness the derivative says little about the loss a step away."""


@dataclass(frozen=True)
class Smoothness:
    """How smooth a loss is along its gradient.

    Attributes:
        value: 1 where predictions change alike in two neighbouring steps (a straight line), 0 where the second change
            has nothing to do with the first, -1 where it undoes it; NaN if a run diverged or nothing moved.
        step: the length of one step along the gradient.
        promised: by how much the loss should fall in the first step, by its derivative.
        fell: by how much it fell.
    """

    value: float
    step: float
    promised: float
    fell: float

    @property
    def rough(self) -> bool:
        """Whether the derivative should not be trusted."""
        return not self.value >= ROUGH

    @property
    def finding(self) -> str:
        """What was found, in words; empty where the loss is smooth."""
        if not self.rough:
            return ""
        return (
            f"the loss is rough along the hypergradient (smoothness {self.value:.2f}; 1 is a straight line, below "
            f"{ROUGH} is rough): its derivative says little"
        )

    @property
    def advice(self) -> str:
        """The finding and what to do about it, for a learner of many tasks; empty where the loss is smooth."""
        if not self.rough:
            return ""
        return (
            f"{self.finding}. Begin with a lower learning rate, look at fewer steps (window=), or use evolution "
            "strategies (--engine evolution), which smooth the loss"
        )


def metasmoothness(run: Callable[[Tree], tuple[Tensor, Tensor]], m: Tree, grads: Tree, step: float = 0.1) -> Smoothness:
    r"""Compare what two neighbouring steps along the negative gradient do to the outcome of a run.

    With v the unit vector against the gradient, h the step and f the query predictions after a run,

    .. math:: S = \cos(\Delta_1, \Delta_2), \qquad \Delta_1 = f(m + hv) - f(m), \quad
              \Delta_2 = f(m + 2hv) - f(m + hv)

    Source: Engstrom et al. 2025 (arXiv:2503.13751), "metasmoothness": the agreement of finite differences of the
    outcome at m and at m + hv. They weigh the agreement of the signs of every coordinate by the size of its change; the
    cosine does the same without a threshold. A gradient is useful where S is close to 1: chaotic runs have S around 0.
    Cost: three runs without derivatives.

    Args:
        run: from m to the outer loss and a vector of outcomes (predictions), both detached; the same data and random
            numbers every time.
        m: where the gradient was taken.
        grads: the gradient.
        step: h: for logarithms of rates, 0.1 changes them by about 10 % in all.
    """
    length = float(norm(grads))
    if not 0 < length < float("inf"):
        return Smoothness(float("nan"), step, float("nan"), float("nan"))
    direction = scale(grads, -1 / length)
    (first, here), (second, there), (_, beyond) = (run(add(m, scale(direction, k * step))) for k in range(3))
    one, two = ((later - sooner).flatten().cpu().double() for sooner, later in ((here, there), (there, beyond)))
    value = float(torch.dot(one, two) / (one.norm() * two.norm()))
    return Smoothness(value, step, length * step, float(first - second))


def smoothness_of(learner: Learner, tasks: Any, step: float = 0.1) -> Smoothness:
    """Return how smooth the mean query loss of a few tasks is along the learner's hypergradient.

    Args:
        learner: the learner, with its engine.
        tasks: a stack, of which at most four are looked at.
        step: as in :func:`metasmoothness`.

    Raises:
        UsageError: if the tasks do not fit the model, or the engine cannot be used.
    """
    tasks = placed(tasks, learner.device)
    few = [one(tasks, place) for place in range(min(count(tasks), 4))]
    m = {name: leaf.detach() for name, leaf in learner.named_parameters() if leaf.requires_grad}

    def run(m: Tree) -> tuple[Tensor, Tensor]:
        losses, outcomes = [], []
        with torch.no_grad():
            for place, task in enumerate(few):
                inner = learner.inner(task, key=torch.tensor(place, device=learner.device))
                loss, aux = inner.outer(roll(inner, inner.start(m), m), m)
                losses.append(loss)
                outcomes.append(aux["prediction"].flatten())
        return torch.stack(losses).mean(), torch.cat(outcomes)

    return metasmoothness(run, m, learner.meta_gradient(tasks).grads, step)
