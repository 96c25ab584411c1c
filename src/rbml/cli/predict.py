"""``rbml predict``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from rbml.cli.topics import FIRST, TopicCommand
from rbml.errors import RbmlError, UsageError

COLUMNS = {"pictures": "image", "table": "row", "text": "text"}
"""The head of the column that identifies the example, by modality."""

_SEVERAL = 5
"""From so many examples on it is worth a warning that most of them are unknown."""

Record = Mapping[str, Any]


class Share(click.ParamType):  # type: ignore[type-arg]  # a class with parameters since click 8.2 only
    """A share, such as ``5%`` or ``0.05``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share as a number between 0 and 1."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 < share < 0.5:
            self.fail(f"expected a share above 0 and below 50%, such as 5%, not {value!r}", param, ctx)
        return share


def unknown_options(function: Any) -> Any:
    """Add ``--unknown-rate`` and ``--no-unknown``."""
    rate = click.option(
        "--unknown-rate",
        type=Share(),
        default="5%",
        show_default=True,
        metavar="SHARE",
        help="The share of examples of known classes that may be called unknown: a higher one finds more unknown ones.",
    )
    never = click.option("--no-unknown", is_flag=True, help="Always name a class, also for what is unlike all of them.")
    return rate(never(function))


@click.command("predict", cls=TopicCommand, topics={FIRST: ("as_json", "as_csv", "unknown_rate", "no_unknown")})
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("places", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: of classes the probability of every one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: of classes the probability of every one.")
@unknown_options
def command(
    file: Path, places: tuple[Path, ...], as_json: bool, as_csv: bool, unknown_rate: float, no_unknown: bool
) -> None:
    """Predict pictures, or the rows of CSV files, with FILE, which `rbml adapt` wrote.

    An INPUT may also be a folder, for all pictures in it and in its folders, or a list: a text file with a path on each
    line. Each is judged by itself, whatever others are in the call. What cannot be read is named at the end, and the
    exit code is then 1. What is unlike all classes is called unknown.

    \b
    rbml predict mine.rbml new1.png new2.jpg
    rbml predict mine.rbml holiday_pictures --csv
    rbml predict mine.rbml @list.txt --unknown-rate 1%
    """  # noqa: D301  \b is click's
    if as_json and as_csv:
        raise UsageError("--json or --csv, not both")
    from rbml.cli.devices import chosen_device
    from rbml.cli.show import errors
    from rbml.predictor import Predictor
    from rbml.training.concerns import concerns, listed, plain

    predictor = Predictor.load(file, None if no_unknown else unknown_rate, chosen_device())
    found = predictor.modality.find(places, labelled=False)
    kind = plain(predictor.modality).kind
    results = list(predictor.each(found.raw))
    column = COLUMNS.get(kind, "example")
    records = {place: {column: found.names[place]} | one for place, one in enumerate(results) if isinstance(one, dict)}
    _print(list(records.values()), as_json, as_csv)
    if found.skipped:
        errors.print(f"Skipped by their names: {listed(found.skipped)}")
    if records:
        raw, names = [found.raw[place] for place in records], [found.names[place] for place in records]
        for sentence in concerns(predictor.modality, raw, names, None):
            errors.print(f"Warning: {sentence}.")
        strangers = sum(bool(record.get("unknown", False)) for record in records.values())
        if len(records) >= _SEVERAL and strangers > len(records) / 2:
            errors.print(
                f"Warning: {strangers} of {len(records)} are unlike all that was learned from: is it the right model? "
                "Were they made in the same way? With --no-unknown each gets the nearest class."
            )
    bad = [one for one in results if isinstance(one, RbmlError)]
    if bad:
        for one in bad[1:]:
            errors.print(f"rbml: {one}")
        raise bad[0]


def _print(records: Sequence[Record], as_json: bool, as_csv: bool) -> None:
    from rbml.cli.show import table

    if as_json:
        click.echo(json.dumps([_whole(record) for record in records], indent=2))
    elif as_csv and records:
        _write_csv([_flat(_whole(record)) for record in records])
    elif records:
        shown = [_shown(record) for record in records]
        table("", list(shown[0]), [list(row.values()) for row in shown], text=2 if "class" in shown[0] else 1)


def _whole(record: Record) -> dict[str, Any]:
    """Return a record without the probability of its class, which is among the probabilities of all classes."""
    return {key: value for key, value in record.items() if key != "probability" or "probabilities" not in record}


def _flat(record: Record) -> dict[str, Any]:
    """Return a record with a column for every entry of its tables, such as the probability of every class."""
    flat = {key: value for key, value in record.items() if not isinstance(value, Mapping)}
    for value in record.values():
        flat |= value if isinstance(value, Mapping) else {}
    told = {key: {True: "yes", False: "no"}[value] if isinstance(value, bool) else value for key, value in flat.items()}
    return {key: f"{value:.6f}" if isinstance(value, float) else value for key, value in told.items()}


def _write_csv(records: Sequence[Record]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(records[0])
    writer.writerows(record.values() for record in records)


def _shown(record: Record) -> dict[str, str]:
    """Return the cells of one row of the table; for classes also the probability and the second likeliest class."""
    shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in record.items()}
    if "probabilities" in record:
        second = sorted(record["probabilities"].items(), key=lambda item: -item[1])[1:2]
        shown["probability"] = f"{record['probability']:.1%}"
        shown["second"] = ", ".join(f"{name} {chance:.1%}" for name, chance in second)
        del shown["probabilities"]
    if shown.pop("unknown", "False") == "True":
        shown |= {"class": "unknown", "probability": "", "second": f"nearest: {record['class']}"}
    return shown
