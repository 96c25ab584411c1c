"""``rbml curve``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbml.cli.options import absolute
from rbml.cli.topics import FIRST, TopicCommand
from rbml.errors import UsageError

if TYPE_CHECKING:
    from rbml.training.curve import Curve, Store


TOPICS = {
    FIRST: ("source", "shots", "ways", "episodes", "out"),
    "Which tasks": ("split", "part", "queries", "seed", "data_root"),
    "What is compared": ("methods",),
    "What it prints": ("as_json",),
}


@click.command("curve", cls=TopicCommand, topics=TOPICS)
@click.argument("run")
@click.option(
    "--tasks", "source", metavar="SOURCE", help="Where test tasks come from.  [default: the run's own source]"
)
@click.option("--split", metavar="NAME", help="Its split of the classes.")
@click.option(
    "--part",
    type=click.Choice(["train", "val", "test", "all"]),
    help="Which classes.  [default: test; all, of another folder than the run's that is not divided]",
)
@click.option("--ways", type=click.IntRange(2), help="Classes per task.  [default: the run's]")
@click.option(
    "--shots",
    metavar="N,N,...",
    help="Numbers of labelled examples: per class, or per task of a table.  [default: 1,2,3,5,10,20; fewer where the "
    "data has not so many]",
)
@click.option(
    "--queries", type=click.IntRange(1), default=10, show_default=True, help="Queries, for all numbers alike."
)
@click.option("--episodes", type=click.IntRange(2), default=100, show_default=True, help="How many tasks.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which tasks.")
@click.option(
    "--methods",
    metavar="NAME,NAME,...",
    help="Only methods whose names contain one of these, beside the learner: fine-tuning, scratch, centroid, logistic, "
    "raw, features ...  [default: all]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to write to.  [default: RUN/curves/SOURCE-...]"
)
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: the run's]")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Processor threads.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    run: str,
    shots: str | None,
    episodes: int,
    seed: int,
    methods: str | None,
    out: Path | None,
    threads: int | None,
    as_json: bool,
    **changes: Any,
) -> None:
    """Measure how many labelled examples RUN needs, beside what needs no learning across tasks.

    RUN is the folder of a run, backbone:NAME (a pretrained network and a head made from the examples: no run is
    needed), or a file that rbml adapt wrote. On the same test tasks are measured: the learner; fine-tuning of the whole
    network from where the learner starts; the same network untrained; and the baselines of the target (for classes:
    nearest centroid and logistic regression) on the raw inputs and on the features of the network. It says from how
    many examples on each of them is as good as the learner.

    What was measured is kept: after Ctrl-C the same command goes on.

    \b
    rbml curve runs/omniglot-5w1s-maml
    rbml curve runs/omniglot-5w1s-maml --tasks quickdraw --shots 1,5,10 --episodes 50
    rbml curve runs/glyphs-5w1s-protonet --tasks folder:my_pictures --methods logistic,centroid
    rbml curve backbone:efficientnet_lite0 --tasks folder:my_pictures
    """  # noqa: D301  \b is click's
    import torch

    from rbml.cli.curve_plan import plan
    from rbml.cli.show import keep_memory
    from rbml.training.curve import Store

    keep_memory()
    if threads:
        torch.set_num_threads(threads)
    changes["source"] = absolute(changes["source"])
    planned = plan(run, numbers(shots), episodes, seed, methods, changes)
    store = Store(out or planned.place, planned.curve)
    interrupted = _measure(planned.curve, store, quiet=as_json)
    result = planned.about | _result(planned.curve, store)
    if not any(point["score"] for method in result["methods"] for point in method["by_shots"]):
        raise UsageError("nothing was measured yet: the same command begins again")
    _write(store, result)
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        _show(result, store)
    if interrupted:
        click.echo("Stopped; what was measured is kept. The same command goes on.", err=True)
        raise SystemExit(130)


def numbers(text: str | None) -> tuple[int, ...] | None:
    """Return the rising numbers of ``"1,5,10"``; ``None`` where nothing was given.

    Raises:
        UsageError: if they are not whole numbers above zero.

    >>> numbers("5,1")
    (1, 5)
    """
    if text is None:
        return None
    parts = [one.strip() for one in text.split(",")]
    if not all(one.isdecimal() and int(one) for one in parts):
        raise UsageError(f"--shots needs whole numbers above 0 with commas between them, such as 1,5,10, not {text!r}")
    return tuple(sorted({int(one) for one in parts}))


def _measure(curve: Curve, store: Store, quiet: bool) -> bool:
    """Measure with a progress bar; return whether it was stopped."""
    from rbml.cli.show import bar
    from rbml.training import Interrupt
    from rbml.training.curve import measure

    total = len(curve.methods) * len(curve.shots) * curve.episodes
    with Interrupt("Finishing these tasks. Press again to stop at once.") as interrupt, bar(total) as progress:
        one = progress.task_ids[0]
        try:
            for name, shots, done in measure(curve, store, lambda: interrupt.asked is not None):
                progress.update(
                    one, description=f"{shots} shots, {name}" if done else f"{shots} shots, {name}: choosing"
                )
                progress.advance(one, done)
        except KeyboardInterrupt:
            return True
    return interrupt.asked is not None


def _result(curve: Curve, store: Store) -> dict[str, Any]:
    from rbml.reports.curve import sentences
    from rbml.training.curve import result

    found = result(curve, store)
    return found | {"said": sentences(found)}


def _write(store: Store, result: dict[str, Any]) -> None:
    """Write the numbers, and the figure where matplotlib is installed."""
    from rbml.reports import style
    from rbml.reports.curve import figure
    from rbml.training import files

    files.write_json(store.folder / "curve.json", result)
    try:
        drawn = figure(result, result["title"], result["subtitle"])
    except UsageError as error:  # matplotlib is an extra
        click.echo(f"rbml: no figure: {error}", err=True)
        return
    files.write_atomically(store.folder / "curve.png", style.png(drawn))


def _show(result: dict[str, Any], store: Store) -> None:
    from rbml.cli.measuring import in_unit
    from rbml.cli.show import console, table
    from rbml.reports.curve import cells

    console.print(result["title"])
    console.print(result["tasks"])
    per = " per class" * result["per_class"]
    title = f"{in_unit(result['metric'])}, mean ± 95 % interval, by the number of examples{per}: {result['subtitle']}"
    table(title, ["method", *map(str, result["shots"])], cells(result))
    for one in [*result["said"], *result["notes"]]:
        console.print(one)
    console.print(f"Written: {store.folder / 'curve.png'}, {store.folder / 'curve.json'}")
