"""``rbml strategy``: export a learned strategy to a small file, or show one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rbml.errors import UsageError, unknown

if TYPE_CHECKING:
    from rbml.reports.learned import LearnedNumber

_COMMANDS = ("export", "show")


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, or suggest the nearest name."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise unknown("command of rbml strategy", args[0], _COMMANDS)
        return super().resolve_command(ctx, args)


@click.group("strategy", cls=_Group)
def command() -> None:
    """Export a learned strategy to a small file, or show one.

    \b
    rbml strategy export runs/glyphs-5w1s-meta_sgd --out mine.strategy
    rbml strategy show mine.strategy
    rbml train omniglot --strategy mine.strategy --freeze-strategy
    """  # noqa: D301  \b is click's


@command.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The file to write.")
@click.option("--which", type=click.Choice(["best", "last"]), default="best", help="Checkpoint.  [default: best]")
def export(run: Path, out: Path, which: str) -> None:
    """Write what RUN has learned of its strategy to a small file."""
    from rbml.cli.show import console
    from rbml.strategy.serialize import described
    from rbml.training import RunFolder, export_strategy
    from rbml.training.evaluator import describe_sizes

    folder = RunFolder(run)
    learner, recipe = folder.learner(which), folder.recipe()
    sizes = {"ways": recipe.tasks.ways, "shots": recipe.tasks.shots}
    if folder.setting().target.kind != "classes":
        del sizes["ways"]
    setting = f"{recipe.algorithm.name} on {recipe.source}, {describe_sizes(sizes)}"
    export_strategy(learner, out, {"run": str(run.resolve()), "learned": setting})
    if not dict(learner.phi.named_parameters()):
        console.print("Nothing of this strategy is learned: the file has its fixed numbers.")
    console.print(f"Wrote {out}: {described(learner.strategy)}")
    console.print(f"Next: rbml train SOURCE --strategy {out} (--freeze-strategy stops learning it)")


@command.command("show")
@click.argument("place", metavar="FILE|RUN", type=click.Path(path_type=Path))
def show(place: Path) -> None:
    """Show the strategy of a file or of a run: its parts, and what was learned by layer."""
    from rbml.cli.show import console
    from rbml.reports.learned import before_and_now, quantities_of
    from rbml.strategy.serialize import described
    from rbml.training import LearnedStrategy, RunFolder, load_strategy

    if not place.exists():
        raise UsageError(f"there is no file or run {place}: rbml strategy export makes a file, rbml train a run")
    if place.is_dir():
        start, now = before_and_now(RunFolder(place))
        learned, before = LearnedStrategy.of(now), LearnedStrategy.of(start).phi
    else:
        learned = load_strategy(place)
        before = learned.phi
    for name, text in learned.about.items():
        console.print(f"{name}: {text}")
    console.print(f"strategy: {described(learned.strategy)}")
    sizes = sum(leaf.numel() for leaf in learned.phi.values())
    console.print(
        f"{learned.steps} inner step{'s' * (learned.steps != 1)}, {len(learned.theta)} adapted tensors, {sizes} numbers"
    )
    _tables(quantities_of(learned.strategy, before, learned.phi), place.is_dir())


def _tables(found: list[LearnedNumber], start: bool) -> None:
    """Print a row for every number and layer, and for every tensor; a file does not know where they started."""
    from rbml.cli.show import table
    from rbml.reports.phi import phi_rows, tensor_rows
    from rbml.reports.wording import phi_cells, tensor_cells

    for head, rows in (phi_cells(phi_rows(found), start), tensor_cells(tensor_rows(found), start)):
        if rows:
            table("", head, [[cell.strip("`") for cell in row] for row in rows], text=3)
