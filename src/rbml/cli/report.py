"""``rbml report``."""

from __future__ import annotations

from pathlib import Path

import click

from rbml.errors import DataError


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which task the gallery shows.")
@click.option("--compare", "other", type=click.Path(path_type=Path), metavar="RUN", help="Compare it with another run.")
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: the run's]")
def command(run: Path, seed: int, other: Path | None, data_root: str | None) -> None:
    """Draw what RUN has learned: learning curves, metrics by inner step, the learned strategy, and one task.

    \b
    rbml report runs/glyphs-5w1s-meta_sgd
    rbml report runs/glyphs-5w1s-meta_sgd --compare runs/glyphs-5w1s-maml
    """  # noqa: D301  \b is click's
    from rbml.cli.measuring import tasks_of
    from rbml.cli.show import console
    from rbml.reports import write_report
    from rbml.training import RunFolder

    folder = RunFolder(run)
    root = data_root or folder.read_config()["data_root"]
    try:
        tasks = tasks_of(folder, "test", root)
    except DataError as error:
        click.echo(f"rbml: no gallery: {error}", err=True)
        tasks = None
    for path in write_report(folder, tasks, seed, None if other is None else RunFolder(other)):
        console.print(str(path))
