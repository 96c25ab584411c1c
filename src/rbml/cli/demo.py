"""``rbml demo``: the main job on the embedded default, from nothing to a table and pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch

from rbml import algorithms
from rbml.cli.evaluate import keep, measure
from rbml.cli.show import bar, console, percent, table
from rbml.cli.train import meta_train
from rbml.reports import write_report
from rbml.tasks import FewShot, generator
from rbml.training import Recipe, RunFolder, Score
from rbml.training.evaluator import accuracy, draw
from rbml.training.recipe import START, TEST

RECIPE = Recipe(data="glyphs", meta_steps=600, tasks=16, queries=5, outer_lr=3e-3, validate_every=100, save_every=50)
QUERIES = 10


@click.command("demo")
@click.option("--run", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="The run folder.")
@click.option("--meta-steps", type=click.IntRange(1), default=RECIPE.meta_steps, show_default=True, help="Outer steps.")
@click.option("--episodes", type=click.IntRange(2), default=200, show_default=True, help="Tasks of each measurement.")
def command(run: Path, meta_steps: int, episodes: int) -> None:
    """Meta-train on drawn glyphs, then learn real handwritten digits from 1 and 5 examples.

    The digits (scikit-learn's) are never seen in training. A demo that was stopped goes on where it was.
    """
    folder = RunFolder(run)
    recipe = folder.recipe() if folder.config.is_file() else replace(RECIPE, meta_steps=meta_steps)
    console.print("1. Meta-training on invented characters, drawn from a seed")
    meta_train(folder, recipe, None)
    console.print("2. Learning classes that were never seen, each task from its few examples alone")
    rows = [_row(folder, recipe, source, shots, episodes) for source in ("glyphs", "digits") for shots in (1, 5)]
    table(
        f"accuracy in %, mean ± 95 % interval over {episodes} tasks, 5 ways, {QUERIES} queries a class, inductive",
        ["tasks", "learned learner", "from scratch", "nearest neighbour"],
        rows,
    )
    console.print(
        f"Learned learner: {recipe.algorithm}, one gradient step. From scratch: the same network from random weights, "
        "50 steps with momentum on the same examples. Nearest neighbour: on pixels."
    )
    console.print("3. Pictures")
    tasks = recipe.build_tasks("test", data="digits", shots=5, queries=QUERIES)
    for path in write_report(folder, tasks, seed=0):
        console.print(f"   {path}")


def _row(folder: RunFolder, recipe: Recipe, source: str, shots: int, episodes: int) -> list[str]:
    """Measure the learner and the two baselines on the same tasks."""
    tasks = recipe.build_tasks("test", data=source, shots=shots, queries=QUERIES)
    learner = folder.learner()
    result = measure(learner, tasks, episodes, recipe.seed)
    keep(folder, result | {"tasks": source, "part": "test", "name": f"{source}-{recipe.ways}w{shots}s"})
    learned = Score(**result["accuracy"]["inductive"][-1])
    fresh, near = baselines(recipe, tasks, episodes)
    return [f"{NAMES[source]}, {shots}-shot", percent(learned), percent(fresh), percent(near)]


NAMES = {"glyphs": "glyphs, held-out classes", "digits": "real handwritten digits"}


def baselines(recipe: Recipe, tasks: FewShot, episodes: int) -> tuple[Score, Score]:
    """Return training from scratch and the nearest neighbour on the tasks that :func:`measure` draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.seed, START).initial_seed())
        learner = algorithms.scratch(recipe.build_model(), chunk=recipe.chunk)
    fresh, near = [], []
    with bar(episodes, what="baselines") as progress:
        for part in draw(tasks, episodes, recipe.chunk, recipe.seed, TEST):
            last = learner.evaluate(part, "inductive", each_step=False)
            fresh.append(accuracy(last.prediction, part.query.y))
            near.append(algorithms.nearest_neighbour(part))
            progress.advance(progress.task_ids[0], part.tasks)
    return Score.of(torch.cat(fresh)), Score.of(torch.cat(near))
