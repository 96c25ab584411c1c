"""``rbml report``."""

from __future__ import annotations

from pathlib import Path

import click

from rbml.errors import RbmlError


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Which random task is shown.")
@click.option(
    "--compare", "other", type=click.Path(path_type=Path), metavar="RUN", help="Also compare with another run."
)
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: the run's]")
def command(run: Path, seed: int, other: Path | None, data_root: str | None) -> None:
    """Show what RUN has learned: how good it is, beside what; curves, one task, and what of the strategy was learned.

    Writes figures and a page into RUN/plots. report.html is one file that holds all of it, for a screen or a telephone;
    report.md is the same page with the figures beside it. Measure first: rbml evaluate RUN --baselines.

    \b
    rbml report runs/glyphs-5w1s-meta_sgd
    rbml report runs/glyphs-5w1s-meta_sgd --compare runs/glyphs-5w1s-maml
    """  # noqa: D301  \b is click's
    from rbml.cli.measuring import tasks_of
    from rbml.cli.show import console
    from rbml.recipe import build
    from rbml.reports import write_report
    from rbml.training import RunFolder

    folder = RunFolder(run)
    root = data_root or folder.read_config()["data_root"]
    tasks, inputs, missing = None, None, ""
    try:
        tasks = tasks_of(folder, "test", root)
        if folder.recipe().inputs.encoder:  # features are nothing to look at
            inputs = build.tasks(folder.recipe(), "test", root, encoder=None)
    except RbmlError as error:
        missing = str(error)
        click.echo(f"rbml: no gallery: {missing}", err=True)
    compared = None if other is None else RunFolder(other)
    for path in write_report(folder, tasks, seed, compared, inputs=inputs, missing=missing):
        console.print(str(path))
