"""How a run is measured on test tasks, and how what was measured is shown and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from rbml.cli.baselines import SCRATCH, without_network
from rbml.cli.show import bar, console, table
from rbml.cli.sources import tasks_for
from rbml.errors import DataError, RbmlError
from rbml.learner import Learner
from rbml.recipe.streams import TEST
from rbml.tasks import TaskSource
from rbml.training import RunFolder, Score, evaluate, kept
from rbml.training.ensemble import Ensemble
from rbml.training.evaluator import describe_sizes, sizes_of

SHOTS = (1, 3, 5, 10, 20)
"""The sizes of support sets that a run on a table is measured with."""

_MOST = 200
"""Each of them is measured on at most so many tasks."""

_TIE = 0.005
"""A share of the metric by which a baseline may be ahead without a word."""


def tasks_of(folder: RunFolder, part: str, root: str | None, **changes: Any) -> TaskSource:
    """Return the tasks of a part of a run's data, or of what the changes name.

    Raises:
        UsageError: for a source, a part or sizes that cannot be.
        DataError: for data that is not there, or cannot be used.
    """
    whose = f"the run in {folder.path}"
    return tasks_for(folder.recipe(), folder.setting(), whose, part, root, **changes)


def measure(
    learner: Learner | Ensemble, tasks: TaskSource, episodes: int, seed: int, steps: int | None = None
) -> dict[str, Any]:
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


def by_shots(
    folder: RunFolder,
    learner: Learner,
    part: str,
    root: str | None,
    changes: Mapping[str, Any],
    how: tuple[int, int, int | None],
) -> list[dict[str, Any]]:
    """Return the first metric, and that of the target's baselines, by the number of support examples.

    Args:
        folder: the run.
        learner: its learner.
        part: of the data.
        root: where data is looked for.
        changes: of the recipe.
        how: the number of tasks, the seed, and the inner steps.
    """
    episodes, seed, steps = min(how[0], _MOST), *how[1:]
    found = []
    for shots in SHOTS:
        try:
            tasks = tasks_of(folder, part, root, **{**changes, "shots": shots})
        except DataError:  # a group has too few rows for so many
            break
        scores = evaluate(learner, tasks, episodes, seed, TEST, steps, ("inductive",))
        learned = scores["inductive"][tasks.target.metrics[0].name][-1]
        plain = without_network(tasks, episodes, learner.execution.chunk, seed)
        named = {"learned": learned} | plain
        found.append({"shots": shots, "scores": {name: asdict(score) for name, score in named.items()}})
    return found


def keep(folder: RunFolder, result: dict[str, Any]) -> None:
    """Write the result into the run folder for its report; a folder that cannot be written to is no reason to fail."""
    path = folder.evaluation(result["name"])
    try:
        path.parent.mkdir(exist_ok=True)
        said = kept.keep(path, result)
    except (OSError, RbmlError) as error:
        said = str(error)
    if said:
        click.echo(f"rbml: not kept for the report: {said}", err=True)


def show(result: dict[str, Any]) -> None:
    """Print the tables of a result: the first metric by inner step, and the others after the last one."""
    first, *others = result["metrics"]
    kinds = list(result[first["name"]])
    setting = f"{describe_sizes(result)}, {result['episodes']} tasks".removeprefix(", ") + of_groups(columns_of(result))
    console.print(result["about"])
    columns = result[first["name"]].values()
    head = kinds if len(kinds) > 1 else ["mean"]  # without batch norm there is nothing to tell apart
    rows = [[str(step), *_cells(first, scores)] for step, scores in enumerate(zip(*columns, strict=True))]
    adapts = len(rows) > 1
    if adapts:
        table(f"{in_unit(first)}, mean ± 95 % interval: {setting}", ["inner steps", *head], rows)
    told = others if adapts else result["metrics"]
    if told:
        last = [[in_unit(one), *_cells(one, [scores[-1] for scores in result[one["name"]].values()])] for one in told]
        title = "after the last inner step" if adapts else f"mean ± 95 % interval: {setting}"
        table(title, ["metric", *head], last)
    if "by_shots" in result:
        _show_by_shots(first, result["by_shots"])
    if "baselines" in result:
        rows = [[name, *_cells(first, [score]), str(score["tasks"])] for name, score in result["baselines"].items()]
        table("without learning across tasks", ["baseline", in_unit(first), "tasks"], rows)
        console.print(f"{SCRATCH} The others: on the inputs as they are, or on what is named.")


def columns_of(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return one score of a result; all are of the same tasks."""
    score: Mapping[str, Any] = next(iter(result[result["metrics"][0]["name"]].values()))[-1]
    return score


def of_groups(score: Mapping[str, Any]) -> str:
    """Return from how many groups the tasks of a score come, as a clause; nothing where there are none.

    >>> of_groups({"groups": 8}), of_groups({"groups": None})
    (' of 8 groups, interval over the groups', '')
    """
    return f" of {score['groups']} groups, interval over the groups" if score.get("groups") else ""


def _show_by_shots(metric: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> None:
    """Print the first metric by the number of support examples, and where the learner is not ahead of the others."""
    if not found:
        return
    names = list(found[0]["scores"])
    rows = [[str(one["shots"]), *_cells(metric, one["scores"].values())] for one in found]
    some = found[0]["scores"]["learned"]
    title = f"{in_unit(metric)} by the number of support examples: {some['tasks']} tasks{of_groups(some)}"
    table(title, ["support", *names], rows)
    sign = 1 if metric["better"] == "higher" else -1
    behind = []
    for one in found:
        own = one["scores"]["learned"]["mean"]
        gains = [sign * (score["mean"] - own) for score in one["scores"].values()]
        behind += [str(one["shots"])] * (not max(gains) <= _TIE * abs(own))  # also where it diverged
    if behind:
        console.print(
            f"With {', '.join(behind)} support example{'s' * (behind != ['1'])} a baseline that needs no training has "
            "the better mean: there is no sign that the learner helps there."
        )


def in_unit(metric: Mapping[str, str]) -> str:
    """Return the name of a metric with its unit: ``"accuracy in %"``."""
    return f"{metric['name']} in {metric['unit']}" if metric["unit"] else metric["name"]


def _cells(metric: Mapping[str, str], scores: Iterable[Mapping[str, Any]]) -> list[str]:
    return [Score(**score).shown(metric["unit"]) for score in scores]
