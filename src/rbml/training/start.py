"""Begin a run: with what another run has learned, or with a first look at the training examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rbml.devices import placed
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.recipe.streams import START
from rbml.strategy.serialize import described
from rbml.tasks import TaskSource, generator, task_seeds
from rbml.tasks.base import Episode
from rbml.tree import Tree

_LOOKED_AT = 8000
"""So many training examples a model looks at."""


def look(learner: Learner, training: TaskSource, seed: int) -> None:
    """Let the model look at training examples before the first outer step, if it wants to, in place.

    A model wants to that has a method ``begin(x, y)``, as :class:`rbml.models.Adaptor` has. The examples are those of
    training tasks; the classes of each task count as classes of their own.

    Args:
        learner: the learner, whose model is changed.
        training: where training tasks come from; other tasks than those of few examples are not looked at.
        seed: of the run.
    """
    begin = getattr(learner.model, "begin", None)
    if begin is None:
        return
    first = placed(training.draw(task_seeds(1, generator(seed, START))), learner.device)
    if not isinstance(first, Episode) or not isinstance(first.support.x, Tensor) or first.support.mask:
        return
    size = first.support.y.shape[1] + first.query.y.shape[1]
    tasks = placed(training.draw(task_seeds(max(1, _LOOKED_AT // size), generator(seed, START))), learner.device)
    x, y = (torch.cat([getattr(part, name) for part in (tasks.support, tasks.query)], 1) for name in ("x", "y"))
    if not y.is_floating_point():
        y = y + torch.arange(len(y), device=y.device)[:, None] * (int(y.max()) + 1)
    begin(x.flatten(0, 1), y.flatten(0, 1))


class Taken(NamedTuple):
    """What a learner has taken over from another one.

    Attributes:
        theta: names of the model's parameters and buffers that were taken.
        left: names of those that keep their own start, because the other model has none of that name and shape.
        phi: names of the numbers of the strategy that were taken.
    """

    theta: list[str]
    left: list[str]
    phi: list[str]

    def __str__(self) -> str:
        """Return it in one line."""
        total = len(self.theta) + len(self.left)
        theta = f"theta0 ({len(self.theta)} of {total} tensors" if self.left else "theta0 (all of it"
        few = ", ".join(self.left[:3]) + (f" and {len(self.left) - 3} more" if len(self.left) > 3 else "")
        theta += f"; new: {few})" if self.left else ")"
        return f"{theta}{', and phi' if self.phi else ''}"


def given(other: Learner) -> dict[str, Any]:
    """Return what a learner has learned, as plain values and tensors: the second argument of :func:`take`."""
    theta, phi = other.model.state_dict(), other.phi.state_dict()
    return {"theta": theta, "phi": phi, "strategy": described(other.strategy)}


def take(learner: Learner, other: Mapping[str, Any]) -> Taken:
    """Give a learner the theta0 of another one, and its phi where the strategy is the same, in place.

    Parameters of the same name and shape are taken. Of a head with another number of classes nothing is.

    Args:
        learner: the learner that begins.
        other: what :func:`given` returned for the one that has learned.

    Raises:
        UsageError: if the two models have no parameter in common.
    """
    own, there = learner.model.state_dict(), other["theta"]
    theta = [name for name, leaf in own.items() if name in there and there[name].shape == leaf.shape]
    if not theta:
        names = f"{', '.join(list(there)[:3])} ... there, and {', '.join(list(own)[:3])} ... here"
        raise UsageError(f"the two models have no parameter of the same name and shape ({names}): use the same --model")
    _copy(own, there, theta)
    phi = _shared_phi(learner, other)
    _copy(learner.phi.state_dict(), other["phi"], phi)
    return Taken(theta, [name for name in own if name not in theta], phi)


def _shared_phi(learner: Learner, other: Mapping[str, Any]) -> list[str]:
    """Return the numbers of phi that both have, if both have the same strategy."""
    if described(learner.strategy) != other["strategy"]:
        return []
    own, there = learner.phi.state_dict(), other["phi"]
    return [name for name, leaf in own.items() if name in there and there[name].shape == leaf.shape]


def _copy(into: Tree, source: Tree, names: list[str]) -> None:
    with torch.no_grad():
        for name in names:
            into[name].copy_(source[name])
