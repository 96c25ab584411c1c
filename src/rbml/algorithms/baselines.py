"""Baselines without learning across tasks, to compare learners with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rbml.algorithms.options import assemble
from rbml.data.targets import Baseline, classes
from rbml.learner import Learner
from rbml.strategy import chain, momentum, sgd, zero
from rbml.tasks import Episodes
from rbml.tasks.base import count, one


def scratch(model: nn.Module, lr: float = 0.1, steps: int = 30, **options: Any) -> Learner:
    """Train the whole untrained network on the few examples, with momentum: no learning across tasks.

    Use it untrained: ``scratch(model).evaluate(episodes, "inductive")``.

    Args:
        model: the untrained model.
        lr: the learning rate.
        steps: gradient steps on the whole support batch.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(momentum(0.9), sgd(lr)), steps, **options)


def pretrain(model: nn.Module, **options: Any) -> Learner:
    """Learn to classify all training classes by ordinary supervised learning: no inner steps.

    Train it on :class:`rbml.tasks.Supervised`, then give ``learner.model`` to :func:`finetune`.

    Args:
        model: a model with an output for every training class.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, sgd(0.1), **({"steps": 0} | options))


def finetune(model: nn.Module, lr: float = 0.1, steps: int = 50, **options: Any) -> Learner:
    """Train a new head, and the pretrained body with it, on the few examples with momentum.

    Chen et al. 2019 (arXiv:1904.04232) call fine-tuning of the head alone their baseline: ``adapt="head"``.

    Args:
        model: the pretrained model; its own head is not used.
        lr: the learning rate.
        steps: gradient steps on the whole support batch.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(zero(), momentum(0.9), sgd(lr)), steps, **options)


def nearest_neighbour(episodes: Episodes) -> Tensor:
    """Return the accuracy of the nearest support example (Euclidean, on raw inputs) for every task, ``(B,)``."""
    return _accuracy_of(classes.nearest_neighbour, episodes)


def nearest_centroid(episodes: Episodes) -> Tensor:
    """Return the accuracy of the nearest class mean (Euclidean, on raw inputs) for every task, ``(B,)``."""
    return _accuracy_of(classes.nearest_centroid, episodes)


def _accuracy_of(baseline: Baseline, episodes: Episodes) -> Tensor:
    tasks = [one(episodes, index) for index in range(count(episodes))]
    return torch.stack([classes.accuracy(baseline(task.support, task.query), task.query) for task in tasks])
