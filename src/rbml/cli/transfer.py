"""``rbml transfer``."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from rbml.cli.options import RecipeCommand, absolute, gathered, recipe_options, setting_options
from rbml.errors import UsageError
from rbml.recipe import Recipe
from rbml.recipe.protocol import recipe_of


@click.command("transfer", cls=RecipeCommand)
@click.option("--train", "sources", metavar="SOURCE,...", help="Sources to train on, a run each; A+B is a mixture.")
@click.option("--runs", metavar="RUN,...", help="Runs that exist already, as further rows.")
@click.option("--test", "targets", metavar="SOURCE,...", required=True, help="Sources to test on.")
@click.option("--episodes", type=click.IntRange(2), default=200, show_default=True, help="Test tasks of each cell.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="transfer", show_default=True, help="The folder to write to."
)
@click.option("--data-root", metavar="PATH", help="Where data is looked for.  [default: $RBML_DATA]")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Processor threads.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@setting_options
@recipe_options
def command(
    sources: str | None,
    runs: str | None,
    targets: str,
    episodes: int,
    out: Path,
    data_root: str | None,
    threads: int | None,
    as_json: bool,
    settings: tuple[str, ...],
    config: Path | None,
    **given: Any,
) -> None:
    """Train on some sources and test on others: a matrix of how well learning carries over.

    There is a run for each source of --train, and a row for each run; beside them what needs no learning across tasks:
    nearest centroid and logistic regression on the raw inputs. All rows see the same test tasks. The tasks of the
    sources of a mixture may have sizes of their own: "glyphs(ways=5)+omniglot(ways=20, shots=1)".

    All pictures are read in one size and with as many channels, and smaller or grey ones are scaled to that: --size and
    --channels, or else the largest that one of the sources has. The runs lie in OUT/runs. What is done is kept: after
    Ctrl-C the same command goes on.

    \b
    rbml transfer --train glyphs,omniglot,quickdraw --test glyphs,omniglot,quickdraw,digits
    rbml transfer --train omniglot,glyphs+omniglot --test omniglot,mnist --meta-steps 500 --filters 32
    rbml transfer --runs runs/a,runs/b --test grocery,folder:my_pictures --ways 5 --shots 5
    """  # noqa: D301  \b is click's
    from rbml.cli.transfer_work import Wanted, written

    wanted = Wanted(
        recipes(listed(sources), given, settings, config),
        [Path(one) for one in listed(runs)],
        [str(absolute(one)) for one in listed(targets)],
        {name: given[name] for name in ("ways", "shots", "queries") if given[name] is not None},
        episodes, out, data_root, threads, shlex.join(["rbml", *sys.argv[1:]]),
    )  # fmt: skip
    if not wanted.recipes and not wanted.runs:
        raise UsageError("nothing to test: name sources with --train, or runs with --runs")
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        result = written(wanted)
    if as_json:
        click.echo(json.dumps(result, indent=2))


def listed(text: str | None) -> list[str]:
    """Return the parts of a list; commas inside parentheses belong to a part.

    >>> listed("glyphs(ways=3, shots=1)+omniglot, digits")
    ['glyphs(ways=3, shots=1)+omniglot', 'digits']
    """
    return [one.strip() for one in re.split(r",(?![^()]*\))", text or "") if one.strip()]


def recipes(
    sources: list[str], given: dict[str, Any], settings: tuple[str, ...], config: Path | None
) -> dict[str, Recipe]:
    """Return a recipe for each source by its name, all of which read pictures in one size.

    Raises:
        UsageError: for a source or an entry that cannot be.
    """
    found = {}
    for one in sources:
        source, chosen = gathered(one, dict(given), settings, config)
        found[one] = recipe_of(str(source), chosen)
    size = given.get("size") or max((one.inputs.size for one in found.values()), default=0)
    channels = given.get("channels") or max((one.inputs.channels for one in found.values()), default=0)
    return {name: one.changed(size=size, channels=channels) for name, one in found.items()}
