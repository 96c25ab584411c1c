"""Learners and inner loops made from the problems of the hypergradient engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.contracts.problems import Make, Pictures, Problem, Task, episodes_for
from torch import nn

from rbml import Batch, Episode, Learner, models
from rbml.algorithms.options import assemble
from rbml.inner import Inner
from rbml.tree import Tree


@pytest.fixture
def make(roughened: Callable[[nn.Module], nn.Module]) -> Make:
    def build(problem: Problem) -> Learner:
        net: nn.Module = models.MLP(4, 3, (5,), nn.Tanh)
        if problem.net == "conv4":
            net = models.Conv4(3, filters=3, norm="batch", activation=nn.Tanh)
        return assemble(roughened(net), problem.strategy(), problem.steps, **problem.options)

    return build


@pytest.fixture
def task(make: Make, pictures: Pictures) -> Task:
    """Return the inner loop of one task and the meta-parameters."""

    def build(problem: Problem) -> tuple[Inner, Tree]:
        learner, episodes = make(problem), episodes_for(problem, pictures)
        support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
        weights = problem.options.get("step_weights")
        bound = learner.bind(
            Episode(support, query),
            step_weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
            key=torch.tensor(11),
        )
        learned = {name: leaf for name, leaf in learner.named_parameters() if leaf.requires_grad}
        return bound.inner(), {name: leaf.detach() for name, leaf in learned.items()}

    return build
