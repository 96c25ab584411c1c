"""``rbml evaluate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbml.cli.options import absolute
from rbml.cli.topics import FIRST, OTHERS, TopicCommand
from rbml.errors import UsageError

if TYPE_CHECKING:
    from rbml.learner import Learner
    from rbml.training import RunFolder

TOPICS = {
    FIRST: ["source", "ways", "shots", "episodes", "honest"],
    "Which tasks": ["part", "split", "queries", "seed"],
    "Which learner": ["which", "ensemble", "others", "steps"],
    OTHERS: ["data_root", "as_json"],
}


@click.command("evaluate", cls=TopicCommand, topics=TOPICS)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--tasks",
    "source",
    metavar="SOURCE",
    help="Another source: quickdraw, digits, folder:PATH.  [default: the run's own]",
)
@click.option(
    "--split", metavar="NAME", help="How its classes are divided into train, val and test; see rbml list data NAME."
)
@click.option(
    "--part",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Which classes.  [default: test; all, of another folder than the run's that is not divided]",
)
@click.option("--ways", type=click.IntRange(2), help="Classes per task.  [default: the run's]")
@click.option(
    "--shots",
    type=click.IntRange(1),
    help="Support examples per class, or per task of a table.  [default: the run's; of a table also others]",
)
@click.option(
    "--queries",
    type=click.IntRange(1),
    help="Query examples per class, or per task of a table.  [default: the run's]",
)
@click.option("--steps", type=click.IntRange(0), help="Inner steps.  [default: the run's]")
@click.option(
    "--episodes",
    type=click.IntRange(2),
    default=1000,
    show_default=True,
    help="How many tasks: with more, the intervals are narrower.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Another number gives other random tasks."
)
@click.option(
    "--which",
    type=click.Choice(["best", "last"]),
    default="best",
    help="The learner of the best validation, or of the last step.  [default: best]",
)
@click.option(
    "--ensemble",
    is_flag=True,
    help="The mean prediction of the learners of the best validations, of a run trained with --keep-best; for classes.",
)
@click.option(
    "--with",
    "others",
    metavar="RUN",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another run, whose best learner predicts together with RUN's: the mean of their probabilities; for classes. "
    "Can be repeated.",
)
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: the run's]")
@click.option(
    "--baselines",
    "honest",
    is_flag=True,
    help="Also what needs no learning across tasks: the same model from scratch, nearest neighbour ...",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    run: Path,
    source: str | None,
    steps: int | None,
    episodes: int,
    seed: int,
    which: str,
    ensemble: bool,
    others: tuple[Path, ...],
    honest: bool,
    as_json: bool,
    **changes: Any,
) -> None:
    """Measure how well RUN learns new tasks: classes, or groups of rows, that training never used.

    Each task is learned from its own few labelled examples, and judged on others (its queries). The table has a row
    before and after each step of this learning (inner step), with the mean over all tasks and a 95 % interval. Of a
    table also by the number of rows that are known, beside simple predictions.

    Models with batch norm are measured twice. Inductive: each query is predicted by itself, as rbml predict does it.
    Transductive: all queries of a task help to normalise one another, as papers often do it.

    The result is kept in the run for rbml report. It never replaces one that was measured on more tasks.

    \b
    rbml evaluate runs/omniglot-5w1s-maml
    rbml evaluate runs/omniglot-5w1s-maml --tasks quickdraw --ways 10
    rbml evaluate runs/omniglot-5w1s-maml --tasks folder:my_pictures --baselines
    """  # noqa: D301  \b is click's
    from rbml.cli.baselines import baselines
    from rbml.cli.calibrated import calibrated, show_calibration
    from rbml.cli.continual import by_classes, show_by_classes
    from rbml.cli.devices import chosen_device
    from rbml.cli.measuring import by_shots, keep, measure, show, tasks_of
    from rbml.cli.show import keep_memory
    from rbml.cli.sources import usual_part
    from rbml.tasks import Continual
    from rbml.training import RunFolder
    from rbml.training.ensemble import Ensemble
    from rbml.training.evaluator import sizes_of
    from rbml.training.kept import valid_json

    keep_memory()
    folder = RunFolder(run)
    root = changes.pop("data_root") or folder.read_config()["data_root"]
    own, source = folder.recipe().source, absolute(source)
    part = changes.pop("part") or usual_part(source, own)
    if source is not None:
        changes |= {"data": source, "split": changes["split"] or ""}
    own_shots = changes["shots"] is None
    changes = {name: (value or None) for name, value in changes.items() if value is not None}
    if (ensemble or others) and which != "best":
        raise UsageError("--ensemble and --with measure the best learners together: leave --which out")
    learner = folder.learner(which).to(chosen_device())
    if changes.get("ways") and folder.setting().target.kind != "classes":
        raise UsageError(f"the tasks of {own} have no classes: leave --ways out")
    tasks = tasks_of(folder, part, root, **changes)
    found = folder.learners() if ensemble else [learner]
    found += [_of_same_inputs(RunFolder(other), folder) for other in others]
    members = Ensemble([one.to(chosen_device()) for one in found]) if ensemble or others else None
    along = tasks.steps if isinstance(tasks, Continual) and learner.steps else None  # a stream is seen to its end
    result = measure(members or learner, tasks, episodes, seed, along if steps is None else steps)
    name = (source or own).replace("/", "_").replace(":", "-").strip("-")
    result |= {"tasks": source or own, "part": part}
    sizes = "".join(f"{size}{what[0]}" for what, size in sizes_of(tasks).items())
    told = {"split": changes.get("split"), "steps": steps, "which": which if which != "best" else None}
    told |= {"ensemble": len(members.learners) if members else None}
    told |= {"with": "+".join(other.name for other in others) or None}
    result |= {what: value for what, value in told.items() if value is not None}
    result["trained"] = folder.trained(which)
    other = [part] * (part in ("train", "val")) + [
        f"{what}-{value}" for what, value in told.items() if value is not None
    ]
    result["name"] = "-".join([name, sizes, *other])
    if members is None:
        result |= calibrated(folder, learner, tasks, episodes, seed)
    if honest:
        simple = baselines(folder.recipe(), tasks, episodes, seed)
        result["baselines"] = {other: asdict(score) for other, score in simple.items()}
    if own_shots and members is None and hasattr(tasks, "shots") and not hasattr(tasks, "ways"):
        result["by_shots"] = by_shots(folder, learner, part, root, changes, (episodes, seed, steps))
    if isinstance(tasks, Continual) and steps is None and members is None:
        result["by_classes"] = by_classes(learner, tasks, seed)
    keep(folder, result)
    if as_json:
        click.echo(json.dumps(valid_json(result), indent=2))
        return
    show(result)
    show_calibration(result)
    if "by_classes" in result:
        show_by_classes(result["by_classes"])


def _of_same_inputs(other: RunFolder, run: RunFolder) -> Learner:
    """Return the best learner of another run that is measured together with one.

    Raises:
        UsageError: if it was trained on other kinds of inputs or targets.
    """
    one, two = (folder.setting() for folder in (run, other))
    if (one.modality, one.target) != (two.modality, two.target):
        raise UsageError(
            f"the run in {other.path} is for {two.modality} and {two.target.kind}, that in {run.path} for "
            f"{one.modality} and {one.target.kind}: --with needs runs with the same inputs and targets"
        )
    return other.learner()
