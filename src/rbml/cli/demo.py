"""``rbml demo``: the main job on the embedded default, from nothing to a table and pictures."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import islice
from pathlib import Path

import click
import torch

from rbml import algorithms
from rbml.cli.evaluate import keep, measure
from rbml.cli.show import bar, console, percent, table
from rbml.cli.train import meta_train
from rbml.errors import UsageError
from rbml.reports import write_report
from rbml.tasks import FewShot, generator
from rbml.training import Recipe, RunFolder, Score
from rbml.training.evaluator import accuracy, draw
from rbml.training.recipe import START, TEST

RECIPE = Recipe(
    data="glyphs",
    algorithm="meta_sgd",
    lr=0.4,
    meta_steps=350,
    tasks=16,
    outer_lr=4e-3,
    validate_every=100,
    save_every=50,
)
QUERIES, FEW = 10, 50


@click.command("demo")
@click.option("--run", type=click.Path(path_type=Path), default="runs/demo", show_default=True, help="The folder.")
@click.option("--meta-steps", type=click.IntRange(1), help=f"Outer steps.  [default: {RECIPE.meta_steps}]")
@click.option("--episodes", type=click.IntRange(2), default=200, show_default=True, help="Tasks of each measurement.")
def command(run: Path, meta_steps: int | None, episodes: int) -> None:
    """Meta-train on drawn glyphs, then learn real handwritten digits from 1 and 5 examples.

    The digits (scikit-learn's) are never seen in training. A demo that was stopped goes on where it was.
    """
    folder = RunFolder(run)
    recipe = _recipe(folder, meta_steps)
    console.print("1. Meta-training on invented characters, drawn from a seed")
    meta_train(folder, recipe, None, None, f"rbml demo --run {shlex.quote(str(run))}")
    console.print("2. Learning classes that were never seen, each task from its few examples alone")
    rows = [_row(folder, recipe, source, shots, episodes) for source in ("glyphs", "digits") for shots in (1, 5)]
    table(
        f"accuracy in %, mean ± 95 % interval over {episodes} tasks, 5 ways, {QUERIES} queries a class, inductive",
        ["tasks", "learned learner", "from scratch", "nearest neighbour"],
        rows,
    )
    console.print(
        f"Learned learner: {recipe.algorithm}, one gradient step. From scratch: the same network from random weights, "
        f"30 steps with momentum on the same examples (first {FEW} tasks). Nearest neighbour: on pixels."
    )
    console.print("3. Pictures")
    tasks = recipe.build_tasks("test", data="digits", shots=5, queries=QUERIES)
    for path in write_report(folder, tasks, seed=0):
        console.print(f"   {path}")


def _recipe(folder: RunFolder, meta_steps: int | None) -> Recipe:
    """Return what the demo does, or refuse to go on with a folder that holds something else."""
    if not folder.config.is_file():
        return replace(RECIPE, meta_steps=meta_steps or RECIPE.meta_steps)
    recipe = folder.recipe()
    if recipe != replace(RECIPE, meta_steps=meta_steps or recipe.meta_steps):
        raise UsageError(f"{folder.path} holds another run than the one asked for: name another --run, or remove it")
    return recipe


def _row(folder: RunFolder, recipe: Recipe, source: str, shots: int, episodes: int) -> list[str]:
    """Measure the learner and the two baselines on the same tasks."""
    tasks = recipe.build_tasks("test", data=source, shots=shots, queries=QUERIES)
    learner = folder.learner()
    result = measure(learner, tasks, episodes, recipe.seed)
    keep(folder, result | {"tasks": source, "part": "test", "name": f"{source}-{recipe.ways}w{shots}s{QUERIES}q"})
    learned = Score(**result["accuracy"]["inductive"][-1])
    fresh, near = baselines(recipe, tasks, episodes)
    return [f"{NAMES[source]}, {shots}-shot", percent(learned), percent(fresh), percent(near)]


NAMES = {"glyphs": "glyphs, held-out classes", "digits": "real handwritten digits"}


def baselines(recipe: Recipe, tasks: FewShot, episodes: int) -> tuple[Score, Score]:
    """Return training from scratch and the nearest neighbour on the tasks that :func:`measure` draws.

    Training from scratch is slow: it is measured on the first ``FEW`` of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(recipe.seed, START).initial_seed())
        learner = algorithms.scratch(recipe.build_model(), chunk=recipe.chunk)
    near = [algorithms.nearest_neighbour(part) for part in draw(tasks, episodes, recipe.chunk, recipe.seed, TEST)]
    fresh, few = [], min(episodes, FEW)
    with bar(few, what="training from scratch") as progress:
        for part in islice(draw(tasks, episodes, 10, recipe.seed, TEST), -(-few // 10)):
            last = learner.evaluate(part, "inductive", each_step=False)
            fresh.append(accuracy(last.prediction, part.query.y))
            progress.advance(progress.task_ids[0], part.tasks)
    return Score.of(torch.cat(fresh)), Score.of(torch.cat(near))
