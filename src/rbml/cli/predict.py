"""``rbml predict``."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import click
import torch

from rbml.cli.show import table
from rbml.data.inputs.pictures import read
from rbml.errors import UsageError
from rbml.training.adapted_file import load_adapted


@click.command("predict")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the probability of every class.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, with the probability of every class.")
def command(file: Path, pictures: tuple[Path, ...], as_json: bool, as_csv: bool) -> None:
    """Classify pictures with FILE, which `rbml adapt` wrote.

    Each is judged by itself, whatever others are in the call.
    """
    if as_json and as_csv:
        raise UsageError("--json or --csv, not both")
    adapted, recipe, names = load_adapted(file)
    with torch.no_grad():
        # one at a time: not even rounding shall depend on the other pictures
        rows = [
            adapted(read(path, recipe.inputs.size, recipe.inputs.channels).float()[None] / 255)[0] for path in pictures
        ]
    probabilities = [torch.softmax(row.double(), 0).tolist() for row in rows]
    if as_json:
        found = [
            {"image": str(path), "class": names[_best(row)], "probabilities": dict(zip(names, row, strict=True))}
            for path, row in zip(pictures, probabilities, strict=True)
        ]
        click.echo(json.dumps(found, indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image", "class", *names])
        for path, row in zip(pictures, probabilities, strict=True):
            writer.writerow([str(path), names[_best(row)], *(f"{value:.6f}" for value in row)])
    else:
        shown = [[str(path), *_first(row, names)] for path, row in zip(pictures, probabilities, strict=True)]
        table("", ["image", "class", "probability", "second"], shown, text=2)


def _best(row: list[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def _first(row: list[float], names: list[str]) -> list[str]:
    first, second = sorted(range(len(row)), key=lambda label: -row[label])[:2]
    return [names[first], f"{row[first]:.1%}", f"{names[second]} {row[second]:.1%}"]
