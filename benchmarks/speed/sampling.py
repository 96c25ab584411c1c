"""What share of an outer step goes into drawing its tasks, with the usual recipe of a source."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from rbml.recipe import build
from rbml.recipe.protocol import recipe_of
from rbml.recipe.streams import TRAIN
from rbml.tasks import generator, task_seeds


def run(chosen: argparse.Namespace) -> None:
    print("| source | tasks | drawing ms | step ms | share (median) |\n| --- | --- | --- | --- | --- |")
    for source in chosen.sources:
        recipe = recipe_of(source, {})
        training = build.tasks(recipe, "train")
        learner = build.learner(recipe, build.setting(recipe, training))

        def once(number: int, recipe: Any = recipe, training: Any = training, learner: Any = learner) -> list[float]:
            seeds = task_seeds(recipe.outer.tasks, generator(recipe.outer.seed, TRAIN, number))
            began = time.process_time()
            tasks = training.draw(seeds)
            drawn = time.process_time()
            learner.meta_gradient(tasks)
            return [drawn - began, time.process_time() - drawn]

        once(0)
        drawing, stepping = zip(*(once(number) for number in range(1, chosen.rounds + 1)), strict=True)
        share = statistics.median(one / (one + other) for one, other in zip(drawing, stepping, strict=True))
        cells = (
            f"{1e3 * statistics.median(drawing):.3g} | {1e3 * statistics.median(stepping):.4g} | {100 * share:.1f} %"
        )
        print(f"| {source} | {recipe.outer.tasks} | {cells} |", flush=True)
