"""``rbml rate``."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import click

from rbml.cli.topics import FIRST, TopicCommand

TOPICS = {
    FIRST: ["target", "classes", "show", "out"],
    "The training runs": ["encoder", "hidden", "changes", "rounds", "seed"],
}


@click.command("rate", cls=TopicCommand, topics=TOPICS)
@click.argument("place", metavar="TABLE.csv|FOLDER|TEXTS.csv", type=click.Path(path_type=Path))
@click.option("--target", default="", help="Of a table: the column to predict.")
@click.option("--classes", is_flag=True, help="The target names classes, although it consists of numbers.")
@click.option("--encoder", default="", help="Of pictures or texts: the pretrained backbone on whose features to train.")
@click.option("--hidden", type=click.IntRange(0), default=0, show_default=True,
    help="Units of the model that rates: 0 is a linear one, which finds most faults.",
)  # fmt: skip
@click.option("--changes", type=click.IntRange(1), default=15, show_default=True, help="Changes of the weights.")
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Divisions into two halves.")
@click.option("--show", type=click.IntRange(0), default=15, show_default=True, help="How many to print.")
@click.option("--out", type=click.Path(path_type=Path), help="A CSV file for the weights of all examples, worst first.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the divisions and the training runs.")
def command(
    place: Path, target: str, classes: bool, encoder: str, hidden: int, changes: int, rounds: int, show: int,
    out: Path | None, seed: int,
) -> None:  # fmt: skip
    """Find the examples of your data that make predictions worse: wrong labels, above all.

    A model is trained on one half of your data with a weight for each example. How the loss on the other half after the
    run depends on each weight is found by differentiating through the run, and the weights of examples that hurt are
    lowered; then the halves change places. A weight below 0.5 means: predictions would be better without this example.
    Look at these yourself before you remove them: rare but right examples may be among them.

    \b
    rbml rate messages.csv
    rbml rate my_photos --out weights.csv
    rbml rate houses.csv --target price --show 5
    """  # noqa: D301  \b is click's
    from rbml.cli.show import bar, console, table
    from rbml.models import MLP
    from rbml.training.tune.job_data import read
    from rbml.training.tune.rating import rate

    data = read(place, target, classes, encoder, seed)
    model = MLP(data.examples.x[0].numel(), data.setting.outputs, (hidden,) if hidden else ())
    with bar(2 * rounds * changes, what="rating") as progress:
        found = rate(
            model, data.examples, target=data.setting.target, rounds=rounds, changes=changes, seed=seed,
            watch=lambda done, total: progress.update(progress.task_ids[0], completed=done),
        )  # fmt: skip
    labels = _labels(data)
    rows = [[data.places[i], labels[i], f"{found.weight[i]:.3f}", data.shown[i][:60]] for i in found.worst.tolist()]
    console.print(
        f"{int(found.hurts.sum())} of {len(rows)} examples have a weight below 0.5: they make predictions worse."
    )
    table("the worst first", ["example", "label", "weight", "shown"], rows[:show], text=2)
    if out is not None:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["example", "label", "weight", "shown"], *rows])
        console.print(f"All of them: {out}")


def _labels(data: Any) -> list[str]:
    if data.examples.y.is_floating_point():
        values = data.setting.target.unscaled(data.examples.y)
        return [f"{row[0]:.4g}" for row in values.tolist()]
    return [data.names[label] for label in data.examples.y.tolist()]
