"""``rbml report``."""

from __future__ import annotations

from pathlib import Path

import click

from rbml.cli.show import console
from rbml.errors import DataError
from rbml.reports import write_report
from rbml.training import RunFolder


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which task the gallery shows.")
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: the run's]")
def command(run: Path, seed: int, data_root: str | None) -> None:
    """Draw what RUN has learned: curves, accuracy by inner step, phi by layer and step, a gallery of a task."""
    folder = RunFolder(run)
    root = data_root or folder.read_config()["data_root"]
    try:
        tasks = folder.recipe().build_tasks("test", root)
    except DataError as error:
        click.echo(f"rbml: no gallery: {error}", err=True)
        tasks = None
    for path in write_report(folder, tasks, seed):
        console.print(str(path))
