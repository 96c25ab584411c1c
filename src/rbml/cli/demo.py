"""``rbml demo``: meta-training, evaluation and a report on the built-in data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rbml.cli.topics import FIRST, TopicCommand
from rbml.errors import UsageError
from rbml.recipe import Recipe

if TYPE_CHECKING:
    from rbml.training import RunFolder

RECIPE = Recipe.of(
    data="glyphs",
    algorithm="meta_sgd",
    lr=0.4,
    meta_steps=350,
    tasks=16,
    outer_lr=4e-3,
    validate_every=100,
    save_every=50,
)
QUERIES = 10
OTHERS = ("from scratch", "nearest neighbour")


@click.command("demo", cls=TopicCommand, topics={FIRST: ("run", "meta_steps", "episodes")})
@click.option("--run", type=click.Path(path_type=Path), default="runs/demo", show_default=True, help="The folder.")
@click.option("--meta-steps", type=click.IntRange(1), help=f"Outer steps.  [default: {RECIPE.outer.meta_steps}]")
@click.option("--episodes", type=click.IntRange(2), default=200, show_default=True, help="Tasks of each measurement.")
def command(run: Path, meta_steps: int | None, episodes: int) -> None:
    """Meta-train on drawn glyphs, then learn real handwritten digits from 1 and 5 examples.

    The digits (scikit-learn's) are never seen in training. A demo that was stopped resumes where it was.
    """
    from rbml.cli.baselines import SCRATCH
    from rbml.cli.measuring import tasks_of
    from rbml.cli.show import console, table
    from rbml.cli.training import meta_train
    from rbml.reports import write_report
    from rbml.training import RunFolder

    folder = RunFolder(run)
    recipe = _recipe(folder, meta_steps)
    console.print("1. Meta-training on invented characters, drawn from a seed")
    meta_train(folder, recipe, None, None, f"rbml demo --run {shlex.quote(str(run))}")
    console.print("2. Learning new classes, each task only from its few examples")
    rows = [_row(folder, recipe, source, shots, episodes) for source in ("glyphs", "digits") for shots in (1, 5)]
    table(
        f"accuracy in %, mean ± 95 % interval over {episodes} tasks, 5 ways, {QUERIES} queries per class, inductive",
        ["tasks", "learned learner", *OTHERS],
        rows,
    )
    console.print(
        f"Learned learner: {recipe.algorithm.name}, one gradient step. {SCRATCH} Nearest neighbour: on pixels."
    )
    console.print("3. Pictures")
    tasks = tasks_of(folder, "test", None, data="digits", shots=5, queries=QUERIES)
    for path in write_report(folder, tasks, seed=0):
        console.print(f"   {path}")


def _recipe(folder: RunFolder, meta_steps: int | None) -> Recipe:
    """Return the recipe of the demo, or refuse to resume a folder that holds another run."""
    if not folder.config.is_file():
        return RECIPE.changed(meta_steps=meta_steps or RECIPE.outer.meta_steps)
    recipe = folder.recipe()
    if recipe != RECIPE.changed(meta_steps=meta_steps or recipe.outer.meta_steps):
        raise UsageError(f"{folder.path} holds another run than the one asked for: name another --run, or remove it")
    return recipe


def _row(folder: RunFolder, recipe: Recipe, source: str, shots: int, episodes: int) -> list[str]:
    """Measure the learner and the two baselines on the same tasks."""
    from rbml.cli.baselines import baselines
    from rbml.cli.devices import chosen_device
    from rbml.cli.measuring import keep, measure, tasks_of
    from rbml.training import Score

    tasks = tasks_of(folder, "test", None, data=source, shots=shots, queries=QUERIES)
    metric = tasks.target.metrics[0]
    learner = folder.learner().to(chosen_device())
    result = measure(learner, tasks, episodes, recipe.outer.seed)
    keep(folder, result | {"tasks": source, "part": "test", "name": f"{source}-{tasks.outputs}w{shots}s{QUERIES}q"})
    learned = Score(**result[metric.name]["inductive"][-1])
    others = baselines(recipe, tasks, episodes, recipe.outer.seed)
    scores = [learned, *(others[name] for name in OTHERS)]
    return [f"{NAMES[source]}, {shots}-shot", *(score.shown(metric.unit) for score in scores)]


NAMES = {"glyphs": "glyphs, held-out classes", "digits": "real handwritten digits"}
