"""What keeps a learner honest: the same tasks without any learning across tasks."""

from __future__ import annotations

from itertools import islice

import torch

from rbml import algorithms
from rbml.cli.show import bar
from rbml.recipe import Recipe, build
from rbml.recipe.streams import START, TEST
from rbml.tasks import FewShot, generator
from rbml.training import Score
from rbml.training.evaluator import accuracy, draw

FEW = 50
"""Training from scratch is slow: it is measured on so many tasks."""

SCRATCH = (
    f"From scratch: the same network from random weights, 30 steps with momentum on the same examples (first {FEW} "
    "tasks), inductive."
)


def baselines(recipe: Recipe, tasks: FewShot, episodes: int, seed: int) -> dict[str, Score]:
    """Return the accuracy of three baselines, by name, on the tasks that ``rbml evaluate`` draws with this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.outer.seed, START).initial_seed())
        learner = algorithms.scratch(build.model(recipe, build.setting(recipe, tasks)), chunk=recipe.execution.chunk)
    parts = list(draw(tasks, episodes, recipe.execution.chunk, seed, TEST))
    fresh, few = [], min(episodes, FEW)
    with bar(few, what="training from scratch") as progress:
        for part in islice(draw(tasks, episodes, 10, seed, TEST), -(-few // 10)):
            last = learner.evaluate(part, "inductive", each_step=False)
            fresh.append(accuracy(last.prediction, part.query.y))
            progress.advance(progress.task_ids[0], part.tasks)
    return {
        "from scratch": Score.of(torch.cat(fresh)),
        "nearest centroid": Score.of(torch.cat([algorithms.nearest_centroid(part) for part in parts])),
        "nearest neighbour": Score.of(torch.cat([algorithms.nearest_neighbour(part) for part in parts])),
    }
