"""``rbml check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rbml.cli.options import RecipeCommand, recipe_options, setting_options


@click.command("check", cls=RecipeCommand)
@click.argument("place", metavar="RUN|SOURCE")
@click.option("--data-root", metavar="PATH", help="Where data is looked for.")
@setting_options
@recipe_options
def command(place: str, data_root: str | None, settings: tuple[str, ...], config: Path | None, **given: Any) -> None:
    """Check the hypergradient of RUN, or of a recipe on SOURCE, against exact engines and finite differences.

    The hypergradient says how every learned number must change so that tasks are learned better: the derivative of the
    loss after learning. If it is wrong, training goes wrong silently. Checked are two tasks, in double precision,
    parameter by parameter. The exit code is 1 if a derivative is not exact.

    \b
    rbml check runs/omniglot-5w1s-maml
    rbml check glyphs --algorithm meta_sgd --filters 8 --queries 2
    """  # noqa: D301  \b is click's
    from rbml.cli.show import console, table
    from rbml.cli.subject import plainly, subject
    from rbml.diagnostics.checking import MEANING, check, short

    learner, episodes = subject(place, data_root, settings, config, given, float64=True)
    verdict = check(learner, episodes)
    rows = [
        [one.parameter, str(one.numbers), short(one.engine), short(one.difference), one.verdict]
        for one in verdict.findings
    ]
    table(
        f"relative distance of {plainly(verdict.own)} from Unrolled(), and of that from central differences",
        ["parameter", "numbers", "engine", "differences", "verdict"],
        rows,
    )
    for kind in sorted({one.verdict for one in verdict.findings}):
        console.print(f"{kind}: {MEANING[kind]}")
    for name, far in verdict.engines.items():
        console.print(f"{name} from Unrolled(): {far if isinstance(far, str) else short(far)}")
    raise SystemExit(0 if verdict.passed else 1)
