"""``rbml explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbml.cli.options import RecipeCommand, recipe_options, setting_options

if TYPE_CHECKING:
    from rbml.diagnostics.explaining import Explanation, Row


@click.command("explain", cls=RecipeCommand)
@click.argument("place", metavar="RUN|SOURCE")
@click.option("--data-root", metavar="PATH", help="Where data is looked for.")
@click.option(
    "--memory", type=float, metavar="GIB", help="How much memory an engine may use.  [default: half of the memory]"
)
@setting_options
@recipe_options
def command(
    place: str,
    data_root: str | None,
    memory: float | None,
    settings: tuple[str, ...],
    config: Path | None,
    **given: Any,
) -> None:
    """Show what every hypergradient engine would cost for RUN, or for a recipe on SOURCE, and which one to use.

    An engine computes how every learned number must change so that tasks are learned better (the hypergradient). They
    differ in time, memory and exactness; the default fits most problems. One inner step is measured; the costs of all
    steps follow by arithmetic. `rbml train --engine auto` uses the choice.

    \b
    rbml explain runs/omniglot-5w1s-maml
    rbml explain glyphs --algorithm maml++ --steps 50 --memory 1
    """  # noqa: D301  \b is click's
    from rbml.cli.show import console, table
    from rbml.cli.subject import subject
    from rbml.diagnostics.explaining import amount, explain
    from rbml.diagnostics.smoothness import ROUGH, smoothness_of

    learner, episodes = subject(place, data_root, settings, config, given)
    found = explain(learner, episodes, None if memory is None else memory * 2**30)
    size = found.size
    rows = [
        [
            row.name,
            "yes" if row.exact else "no",
            amount(row.memory),
            f"{row.seconds:.2g}",
            _note(found, row),
        ]
        for row in found.rows
    ]
    table(
        f"one outer step of {size.tasks} tasks in chunks of {size.chunk}: {size.meta:,} meta-parameters, {size.steps} "
        f"inner steps; per task {amount(size.carry)} for a carry, {amount(size.activations)} for activations",
        ["engine", "exact", "memory", "seconds", "note"],
        rows,
    )
    for row in found.rows:
        if row.refusal:
            console.print(f"{row.name}: {row.refusal}")
    if size.steps == 0:
        console.print("There are no inner steps to differentiate through: the engines do not differ here.")
    console.print(f"Choice: {found.chosen.name}: {found.why}.")
    if size.steps:
        learner.hypergradient = found.chosen.engine
        smooth = smoothness_of(learner, episodes)
        if smooth.rough:
            console.print(f"Warning: {smooth.advice}.")
        else:
            console.print(
                f"The loss is smooth along the hypergradient ({smooth.value:.2f}; 1 is a straight line, below {ROUGH} "
                "is rough): its derivative can be trusted."
            )


def _note(found: Explanation, row: Row) -> str:
    if row is found.chosen:
        return "taken"
    if row.refusal:
        return "cannot, see below"
    return "over the budget" if row.memory > found.budget else ""
