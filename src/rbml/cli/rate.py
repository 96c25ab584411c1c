"""``rbml rate``."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbml.cli.topics import FIRST, TopicCommand

if TYPE_CHECKING:
    from rbml.training.tune import Rated
    from rbml.training.tune.rate_data import Rateable

TOPICS = {
    FIRST: ["out", "target", "classes", "show", "pictures"],
    "How it is found": ["encoder", "halvings", "changes", "seed"],
    "Other options": ["as_json", "data_root"],
}

ASSUMES = (
    "This assumes that errors are random and that most labels of every class are right: a mistake that is always made "
    "with similar examples cannot be found, and rare but right examples are among the suspects. Look before you change "
    "one."
)

_DRAWN = 48


@click.command("rate", cls=TopicCommand, topics=TOPICS)
@click.argument("place", metavar="TABLE.csv|FOLDER|TEXTS.csv|SOURCE")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.csv",
    help="Write all rows with label, weight and suggested label, the worst first.")  # fmt: skip
@click.option("--target", default="", metavar="COLUMN", help="Of a table: the column of the labels.")
@click.option("--classes", is_flag=True, help="The target names classes, although it consists of numbers.")
@click.option("--show", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="Rows to print.")
@click.option("--pictures", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html",
    help="Of pictures: write a page that shows the worst ones.")  # fmt: skip
@click.option("--encoder", default="", metavar="NAME",
    help="Of pictures or texts: the pretrained backbone of the features.  [default: efficientnet_lite0 or minilm]",
)  # fmt: skip
@click.option("--halvings", type=click.IntRange(1), metavar="N",
    help="How often the data is halved: more is slower and steadier.  [default: 3, beyond 2,000 examples 1]",
)  # fmt: skip
@click.option("--changes", type=click.IntRange(1), default=30, show_default=True, metavar="N",
    help="Changes of the weights, each by a derivative through whole training runs.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Of the halvings.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--data-root", metavar="FOLDER", help="Where a known source is looked for.  [default: $RBML_DATA]")
def command(
    place: str, out: Path | None, target: str, classes: bool, show: int, pictures: Path | None, encoder: str,
    halvings: int | None, changes: int, seed: int, as_json: bool, data_root: str | None,
) -> None:  # fmt: skip
    """Find the examples of your own data whose labels are probably wrong.

    The data may be a table (with --target), a folder with one folder of pictures per class, a file of texts with
    columns text and label (.csv, .tsv, .jsonl), or a known source (rbml list data). No label has to be known to be
    right: a model learns from one half of the data, with a weight for every example; the weights are changed so that
    it predicts the other half, and the other way round. Nothing in your data is changed. Ctrl-C keeps what was found.

    \b
    rbml rate messages.csv --out rated.csv
    rbml rate my_photos --pictures worst.html
    rbml rate patients.csv --target diagnosis
    rbml rate digits
    """  # noqa: D301  \b is click's
    from rbml.cli.devices import chosen_device
    from rbml.cli.reading import reading_shown
    from rbml.cli.show import bar, console, errors
    from rbml.errors import UsageError
    from rbml.training.files import write_atomically
    from rbml.training.interrupt import Interrupt
    from rbml.training.tune import RateProgress, rate
    from rbml.training.tune.rate_data import rateable

    chosen_device()  # features of pictures and sentences are computed there; the linear models are too small for it
    with reading_shown():
        data = rateable(place, target, classes, encoder, data_root)
    if pictures is not None and data.draw is None:
        raise UsageError(f"{place} has no pictures: leave --pictures out, and use --out for all rows")
    with Interrupt("stopping: judging with the weights so far") as interrupt, bar(changes, what="rating") as progress:

        def watch(now: RateProgress) -> None:
            progress.update(progress.task_ids[0], completed=now.done, now=f"loss {now.loss:.4f}")
            if not errors.is_terminal and now.done % 10 == 0:
                errors.print(f"change {now.done} of {now.total}: loss on the other halves {now.loss:.4f}")

        found = rate(
            (data.x, data.y), halvings=halvings, changes=changes, seed=seed, watch=watch,
            asked=lambda: interrupt.asked is not None,
        )  # fmt: skip
    rows = _rows(found, data)
    worst = rows[: int(found.wrong.sum())]
    if out is not None:
        write_atomically(out, _as_csv(rows))
    if pictures is not None and worst:
        write_atomically(pictures, _page(place, data, found, worst[:_DRAWN]))
    if as_json:
        click.echo(json.dumps(_summary(found, data) | {"rows": worst[:show]}, indent=2))
        return
    _say(found, data, worst, show)
    for file, what in ((out, f"all {len(rows)} rows"), (pictures, f"the {min(len(worst), _DRAWN)} worst pictures")):
        if file is not None and (worst or file is out):
            console.print(f"Written: {file} ({what}).")


def _rows(found: Rated, data: Rateable) -> list[dict[str, Any]]:
    """Return one record per example, the worst first."""
    weight, right = found.weight.tolist(), found.right.tolist()
    label, suggested, disagrees = data.y.tolist(), found.suggested.tolist(), found.disagrees.tolist()
    return [
        {
            "number": at + 1,
            "place": data.places[at],
            "label": data.names[label[at]],
            "suggested": data.names[suggested[at]],
            "right": round(right[at], 4),
            "weight": round(weight[at], 4),
            "disagrees": disagrees[at],
            "example": data.shown[at] if data.shown else "",
        }
        for at in found.order().tolist()
    ]


def _as_csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kept = [name for name in rows[0] if name != "example" or rows[0]["example"]]
    writer.writerow(kept)
    told = {True: "yes", False: "no"}
    writer.writerows([told[row[name]] if name == "disagrees" else row[name] for name in kept] for row in rows)
    return text.getvalue().encode()


def _summary(found: Rated, data: Rateable) -> dict[str, Any]:
    return {
        "examples": len(data.y),
        "classes": len(data.names),
        "wrong": int(found.wrong.sum()),
        "estimated_share": round(found.noise.rate, 4),
        "confused": [[data.names[a], data.names[b], round(share, 4)] for a, b, share in found.noise.confused()],
        "disagree": int(found.disagrees.sum()),
        "stopped": found.stopped,
    }


def _say(found: Rated, data: Rateable, worst: Sequence[dict[str, Any]], show: int) -> None:
    from rbml.cli.show import console, table

    count = _summary(found, data)
    if worst and show:
        text = ["rank", "where", "label", "suggested", *(["example"] if data.shown else [])]
        cells = [
            [str(rank), row["place"], row["label"], row["suggested"], *([_short(row["example"])] if data.shown else []),
             f"{row['right']:.1%}", f"{row['weight']:.2f}"]
            for rank, row in enumerate(worst[:show], 1)
        ]  # fmt: skip
        table("labels that are probably wrong, the worst first", [*text, "right", "weight"], cells, text=len(text))
        console.print(
            "right: the chance that the label is right. weight: what the example is worth to a model, from 0 to 1."
        )
    more = f" ({len(worst) - show} more than shown)" if len(worst) > show else ""
    console.print(
        f"{count['wrong']} of {count['examples']} labels are probably wrong{more}; the share of wrong labels is "
        f"estimated as {found.noise.rate:.1%}."
    )
    if count["confused"]:
        listed = "; ".join(f"{true} as {label} ({share:.0%})" for true, label, share in count["confused"][:5])
        console.print(f"Errors depend on the class. Most often labelled as another one: {listed}.")
    console.print(f"The simple way (a model of the other half predicts another class) suspects {count['disagree']}.")
    console.print(ASSUMES)
    if found.stopped:
        console.print(
            f"Interrupted after {found.changes} changes of the weights: the same command without Ctrl-C goes further."
        )


def _short(text: str, letters: int = 70) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _page(place: str, data: Rateable, found: Rated, worst: Sequence[dict[str, Any]]) -> bytes:
    from rbml.reports.worst import worst_page

    assert data.draw is not None
    shown = data.draw([row["number"] - 1 for row in worst])
    count = _summary(found, data)
    head = f"{count['wrong']} of {count['examples']} labels are probably wrong. {ASSUMES}\n"
    return worst_page(f"Rated: {Path(place).name}", head, shown, [(row["label"], row["suggested"]) for row in worst])
