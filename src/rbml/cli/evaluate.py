"""``rbml evaluate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rbml.cli.baselines import SCRATCH, baselines
from rbml.cli.options import absolute
from rbml.cli.show import bar, console, keep_memory, percent, table
from rbml.data import PARTS
from rbml.data.sources.folder import divided
from rbml.errors import RbmlError
from rbml.learner import Learner
from rbml.recipe import build
from rbml.recipe.streams import TEST
from rbml.tasks import FewShot
from rbml.training import RunFolder, Score, evaluate, files


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--tasks",
    "source",
    metavar="SOURCE",
    help="Another source: quickdraw, digits, folder:PATH.  [default: the run's own]",
)
@click.option("--split", metavar="NAME", help="Its split of the classes.")
@click.option(
    "--part",
    type=click.Choice([*PARTS, "all"]),
    help="Which classes.  [default: test; all, of another folder than the run's that is not divided]",
)
@click.option("--ways", type=click.IntRange(2), help="Classes a task.  [default: the run's]")
@click.option("--shots", type=click.IntRange(1), help="Support examples a class.  [default: the run's]")
@click.option("--queries", type=click.IntRange(1), help="Query examples a class.  [default: the run's]")
@click.option("--steps", type=click.IntRange(0), help="Inner steps.  [default: the run's]")
@click.option("--episodes", type=click.IntRange(2), default=1000, show_default=True, help="How many tasks.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which tasks.")
@click.option("--which", type=click.Choice(["best", "last"]), default="best", help="Checkpoint.  [default: best]")
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: the run's]")
@click.option("--baselines", "honest", is_flag=True, help="Also from scratch, nearest centroid and neighbour.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    run: Path,
    source: str | None,
    steps: int | None,
    episodes: int,
    seed: int,
    which: str,
    honest: bool,
    as_json: bool,
    **changes: Any,
) -> None:
    """Measure RUN on test tasks: accuracy after every inner step, transductive and inductive.

    Transductive: batch norm uses the statistics of the query batch, as the papers do. Inductive: those of the support
    batch, so that a prediction does not depend on other queries.

    \b
    rbml evaluate runs/omniglot-5w1s-maml
    rbml evaluate runs/omniglot-5w1s-maml --tasks quickdraw --ways 10
    rbml evaluate runs/omniglot-5w1s-maml --tasks folder:my_pictures --baselines
    """  # noqa: D301  \b is click's
    keep_memory()
    folder = RunFolder(run)
    root = changes.pop("data_root") or folder.read_config()["data_root"]
    own, source = folder.recipe().data[0].source, absolute(source)
    part = changes.pop("part") or _part(source, own)
    if source is not None:
        changes |= {"data": source, "split": changes["split"] or ""}
    changes = {name: (value or None) for name, value in changes.items() if value is not None}
    learner = folder.learner(which)
    tasks = build.tasks(folder.recipe(), part, root, **changes)
    result = measure(learner, tasks, episodes, seed, steps)
    name = (source or own).replace("/", "_").replace(":", "-").strip("-")
    result |= {"tasks": source or own, "part": part}
    result["name"] = f"{name}-{tasks.ways}w{tasks.shots}s{tasks.queries}q" + (
        f"-{part}" if part in ("train", "val") else ""
    )
    if honest:
        found = baselines(folder.recipe(), tasks, episodes, seed)
        result["baselines"] = {other: asdict(score) for other, score in found.items()}
    keep(folder, result)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    show(result)


def _part(source: str | None, own: str) -> str:
    """Return which classes are meant where none are named: nothing of a foreign folder was learned on."""
    kind, _, path = (source or "").partition(":")
    return "all" if kind == "folder" and source != own and not divided(Path(path)) else "test"


def measure(learner: Learner, tasks: FewShot, episodes: int, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Evaluate with a progress bar and return the result as plain values."""
    with bar(episodes, what="evaluating") as progress:
        one = progress.task_ids[0]
        done = lambda count: progress.advance(one, count)  # noqa: E731
        scores = evaluate(learner, tasks, episodes, seed, TEST, steps, advance=done)
    return {
        "about": tasks.about,
        "ways": tasks.ways,
        "shots": tasks.shots,
        "queries": tasks.queries,
        "episodes": episodes,
        "seed": seed,
        "accuracy": {which: [asdict(score) for score in column] for which, column in scores.items()},
    }


def keep(folder: RunFolder, result: dict[str, Any]) -> None:
    """Write the result into the run folder for its report; a folder that cannot be written to is no reason to fail."""
    path = folder.evaluation(result["name"])
    try:
        path.parent.mkdir(exist_ok=True)
        files.write_json(path, result)
    except (OSError, RbmlError) as error:
        click.echo(f"rbml: not kept for the report: {error}", err=True)


def show(result: dict[str, Any]) -> None:
    """Print the table of a result."""
    columns = [[Score(**score) for score in column] for column in result["accuracy"].values()]
    rows = [[str(step), *map(percent, scores)] for step, scores in enumerate(zip(*columns, strict=True))]
    setting = f"{result['ways']}-way {result['shots']}-shot, {result['queries']} queries a class"
    setting += f", {result['episodes']} tasks"
    console.print(result["about"])
    table(f"accuracy in %, mean ± 95 % interval: {setting}", ["inner steps", *result["accuracy"]], rows)
    if "baselines" in result:
        rows = [[name, percent(Score(**score)), str(score["tasks"])] for name, score in result["baselines"].items()]
        table("without learning across tasks", ["baseline", "accuracy", "tasks"], rows)
        console.print(f"{SCRATCH} Nearest centroid, nearest neighbour: on pixels.")
