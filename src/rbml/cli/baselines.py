"""Baselines: the same tasks without any learning across tasks."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch

from rbml import algorithms
from rbml.cli.devices import chosen_device
from rbml.cli.show import bar
from rbml.recipe import Recipe, build
from rbml.recipe.streams import START, TEST
from rbml.tasks import TaskSource, generator
from rbml.tasks.base import count
from rbml.training import Score
from rbml.training.evaluator import draw, groups_of
from rbml.training.rivals import INPUTS, plain_baselines

FEW = 50
"""Training from scratch is slow, so that it is measured on this many tasks only."""

SCRATCH = (
    f"From scratch: the same model before any training across tasks, 30 steps with momentum on the same examples "
    f"(first {FEW} tasks), inductive."
)


def baselines(recipe: Recipe, tasks: TaskSource, episodes: int, seed: int) -> dict[str, Score]:
    """Return the first metric of every baseline by name, on the tasks of ``rbml evaluate`` with this seed."""
    metric = tasks.target.metrics[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.outer.seed, START).initial_seed())
        model = build.model(recipe, build.setting(recipe, tasks))
        # Squared errors of numbers of size one have steeper gradients than cross entropy: a rate of 0.1 diverges.
        options: dict[str, Any] = {} if tasks.target.kind == "classes" else {"lr": 0.03}
        learner = algorithms.scratch(model, chunk=recipe.execution.chunk, loss=tasks.target.loss, **options)
    learner.to(chosen_device())
    fresh, few = [], min(episodes, FEW)
    with bar(few, what="training from scratch") as progress:
        for part in islice(draw(tasks, episodes, 10, seed, TEST), -(-few // 10)):
            last = learner.evaluate(part, "inductive", each_step=False, metrics=(metric,))
            fresh.append(last.metrics[metric.name][:, -1])
            progress.advance(progress.task_ids[0], count(part))
    groups = groups_of(tasks, episodes, seed, TEST)
    scratch = torch.cat(fresh)
    first = {"from scratch": Score.of(scratch, groups and groups[: len(scratch)])}
    return first | without_network(tasks, episodes, recipe.execution.chunk, seed)


def without_network(tasks: TaskSource, episodes: int, chunk: int, seed: int) -> dict[str, Score]:
    """Return the target's first metric of its own baselines, by name: cheap ones, on what needs no network to see."""
    groups = groups_of(tasks, episodes, seed, TEST)
    parts = list(draw(tasks, episodes, chunk, seed, TEST))
    return {
        method.name.removesuffix(f" on {INPUTS}"): Score.of(
            torch.cat([method.of(part, None) for part in parts]), groups
        )
        for method in plain_baselines(tasks)
    }
