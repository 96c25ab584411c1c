"""``rbml predict``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from rbml.errors import UsageError

COLUMNS = {"pictures": "image", "table": "row", "text": "text"}
"""The head of the column that identifies the example, by modality."""

Record = Mapping[str, Any]


@click.command("predict")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("places", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: of classes the probability of every one.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: of classes the probability of every one.")
def command(file: Path, places: tuple[Path, ...], as_json: bool, as_csv: bool) -> None:
    """Predict pictures, or the rows of CSV files, with FILE, which `rbml adapt` wrote.

    Each is judged by itself, whatever others are in the call.

    \b
    rbml predict mine.rbml new1.png new2.jpg
    rbml predict mine.rbml new.csv --csv
    """  # noqa: D301  \b is click's
    if as_json and as_csv:
        raise UsageError("--json or --csv, not both")
    from rbml.cli.show import table
    from rbml.predictor import Predictor

    predictor = Predictor.load(file)
    found = predictor.modality.find(places, labelled=False)
    column = COLUMNS.get(predictor.modality.kind, "example")
    records = [{column: name} | record for name, record in zip(found.names, predictor(found.raw).records, strict=True)]
    if as_json:
        click.echo(json.dumps([_whole(record) for record in records], indent=2))
    elif as_csv:
        _write_csv([_flat(_whole(record)) for record in records])
    else:
        shown = [_shown(record) for record in records]
        table("", list(shown[0]), [list(row.values()) for row in shown], text=2 if "class" in shown[0] else 1)


def _whole(record: Record) -> dict[str, Any]:
    """Return a record without the probability of its class, which is among the probabilities of all classes."""
    return {key: value for key, value in record.items() if key != "probability" or "probabilities" not in record}


def _flat(record: Record) -> dict[str, Any]:
    """Return a record with a column for every entry of its tables, such as the probability of every class."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= value if isinstance(value, Mapping) else {key: value}
    return {key: f"{value:.6f}" if isinstance(value, float) else value for key, value in flat.items()}


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
    return shown
