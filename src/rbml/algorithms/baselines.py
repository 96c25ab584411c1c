"""The baselines that keep everyone honest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rbml.learner import Learner
from rbml.strategy import chain, momentum, sgd
from rbml.tasks import Episodes


def scratch(model: nn.Module, lr: float = 0.1, steps: int = 30, **options: Any) -> Learner:
    """Train the whole network on the few examples from its random start, with momentum: no learning across tasks.

    Use it untrained: ``scratch(model).evaluate(episodes, "inductive")``.

    Args:
        model: the model at its random start.
        lr: the learning rate.
        steps: gradient steps on the whole support batch.
        **options: any other of :class:`rbml.Learner`.
    """
    return Learner(model, chain(momentum(0.9), sgd(lr)), steps, **options)


def nearest_neighbour(episodes: Episodes) -> Tensor:
    """Return the accuracy of the nearest support example (Euclidean, on raw inputs) for every task, ``(B,)``."""
    support, query = episodes.support.x.flatten(2), episodes.query.x.flatten(2)
    nearest = torch.cdist(query, support).argmin(-1)
    return (episodes.support.y.gather(1, nearest) == episodes.query.y).float().mean(-1)
