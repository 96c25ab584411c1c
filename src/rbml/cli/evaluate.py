"""``rbml evaluate``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rbml.cli.baselines import SCRATCH, baselines
from rbml.cli.options import absolute
from rbml.cli.show import bar, console, keep_memory, table
from rbml.data import PARTS
from rbml.data.sources.folder import divided
from rbml.errors import RbmlError
from rbml.learner import Learner
from rbml.recipe import build
from rbml.recipe.streams import TEST
from rbml.tasks import PerGroup, TaskSource
from rbml.training import RunFolder, Score, evaluate, files
from rbml.training.evaluator import describe_sizes, sizes_of


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
    help="Which classes.  [default: test; all, for another folder that has no parts]",
)
@click.option("--ways", type=click.IntRange(2), help="Classes per task.  [default: the run's]")
@click.option(
    "--shots",
    type=click.IntRange(1),
    help="Support examples per class, or per task of real values.  [default: the run's]",
)
@click.option(
    "--queries",
    type=click.IntRange(1),
    help="Query examples per class, or per task of real values.  [default: the run's]",
)
@click.option("--steps", type=click.IntRange(0), help="Inner steps.  [default: the run's]")
@click.option("--episodes", type=click.IntRange(2), default=1000, show_default=True, help="How many tasks.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which tasks.")
@click.option("--which", type=click.Choice(["best", "last"]), default="best", help="Checkpoint.  [default: best]")
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: the run's]")
@click.option(
    "--baselines",
    "honest",
    is_flag=True,
    help="Compare with training from scratch and simple baselines (nearest neighbour ...).",
)
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
    """Evaluate RUN on test tasks: its metrics after every inner step, transductive and inductive.

    Transductive: batch norm uses the statistics of the query batch, as most papers do. Inductive: those of the support
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
    tasks = tasks_of(folder, part, root, **changes)
    result = measure(learner, tasks, episodes, seed, steps)
    name = (source or own).replace("/", "_").replace(":", "-").strip("-")
    result |= {"tasks": source or own, "part": part}
    sizes = "".join(f"{size}{what[0]}" for what, size in sizes_of(tasks).items())
    result["name"] = f"{name}-{sizes}" + (f"-{part}" if part in ("train", "val") else "")
    if honest:
        found = baselines(folder.recipe(), tasks, episodes, seed)
        result["baselines"] = {other: asdict(score) for other, score in found.items()}
    keep(folder, result)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    show(result)


def _part(source: str | None, own: str) -> str:
    """Return the default part: all classes of a folder that the run was not trained on, else the test classes."""
    kind, _, path = (source or "").partition(":")
    return "all" if kind == "folder" and source != own and not divided(Path(path)) else "test"


def tasks_of(folder: RunFolder, part: str, root: str | None, **changes: Any) -> TaskSource:
    """Return the tasks of a part of a run's data, or of what the changes name.

    Raises:
        UsageError: for a source, a part or sizes that are not possible.
        DataError: for data that is not there, or cannot be used.
    """
    tasks, known = build.tasks(folder.recipe(), part, root, **changes), folder.setting()
    # A table is standardised by its own training rows, and another table's would be other units than the run's.
    return tasks.read_as(known.modality, known.target) if isinstance(tasks, PerGroup) else tasks


def measure(learner: Learner, tasks: TaskSource, episodes: int, seed: int, steps: int | None = None) -> dict[str, Any]:
    """Evaluate with a progress bar and return the result as plain values: by metric, by statistics, by inner step."""
    with bar(episodes, what="evaluating") as progress:
        one = progress.task_ids[0]
        done = lambda count: progress.advance(one, count)  # noqa: E731
        scores = evaluate(learner, tasks, episodes, seed, TEST, steps, advance=done)
    metrics = tasks.target.metrics
    return {
        "about": tasks.about,
        **sizes_of(tasks),
        "episodes": episodes,
        "seed": seed,
        "metrics": [{"name": metric.name, "better": metric.better, "unit": metric.unit} for metric in metrics],
    } | {
        metric.name: {which: [asdict(score) for score in found[metric.name]] for which, found in scores.items()}
        for metric in metrics
    }


def keep(folder: RunFolder, result: dict[str, Any]) -> None:
    """Write the result into the run folder for its report; if that fails, only warn."""
    path = folder.evaluation(result["name"])
    try:
        path.parent.mkdir(exist_ok=True)
        files.write_json(path, result)
    except (OSError, RbmlError) as error:
        click.echo(f"rbml: not kept for the report: {error}", err=True)


def show(result: dict[str, Any]) -> None:
    """Print the tables of a result: the first metric after every inner step, the others after the last one."""
    first, *others = result["metrics"]
    kinds = list(result[first["name"]])
    setting = f"{describe_sizes(result)}, {result['episodes']} tasks".removeprefix(", ")
    console.print(result["about"])
    columns = result[first["name"]].values()
    rows = [[str(step), *_cells(first, scores)] for step, scores in enumerate(zip(*columns, strict=True))]
    table(f"{in_unit(first)}, mean ± 95 % interval: {setting}", ["inner steps", *kinds], rows)
    if others:
        last = [[in_unit(one), *_cells(one, [scores[-1] for scores in result[one["name"]].values()])] for one in others]
        table("after the last inner step", ["metric", *kinds], last)
    if "baselines" in result:
        rows = [[name, *_cells(first, [score]), str(score["tasks"])] for name, score in result["baselines"].items()]
        table("without learning across tasks", ["baseline", first["name"], "tasks"], rows)
        console.print(f"{SCRATCH} The others use the inputs directly, without a network.")


def in_unit(metric: Mapping[str, str]) -> str:
    """Return the name of a metric with its unit: ``"accuracy in %"``."""
    return f"{metric['name']} in {metric['unit']}" if metric["unit"] else metric["name"]


def _cells(metric: Mapping[str, str], scores: Iterable[Mapping[str, Any]]) -> list[str]:
    return [Score(**score).shown(metric["unit"]) for score in scores]
