"""``rbml list``: algorithms, strategies, engines and so on, one per line, read without importing PyTorch."""

from __future__ import annotations

import click

from rbml import catalogue
from rbml.errors import unknown


@click.command("list")
@click.argument("kind", required=False)
@click.argument("name", required=False)
@click.option("-v", "--verbose", is_flag=True, help="Show the options of each.")
def command(kind: str | None, name: str | None, verbose: bool) -> None:
    """List what rbml has, one line each, or the options of one entry.

    KIND is algorithms, strategies, engines, models, backbones, data or tasks; all of them by default.

    \b
    rbml list strategies
    rbml list strategies momentum
    """  # noqa: D301  \b is click's
    if kind is not None and kind not in catalogue.TABLES:
        raise unknown("list", kind, catalogue.TABLES)
    for one in [kind] if kind else catalogue.TABLES:
        if kind is None:
            click.secho(one, bold=True)
        entries = catalogue.members(one)
        if name is not None and name not in entries:
            raise unknown(f"entry of rbml list {kind}", name, entries)
        width = max(len(entry) for entry in entries)
        for entry, member in entries.items():
            if name in (None, entry):
                click.echo(f"  {entry:{width if name is None else 0}}  {member.line}")
                if verbose or name is not None:
                    own = _OWN.get(one, ())
                    _show_options(tuple(option for option in member.options if option.name not in own))
    if kind == "strategies" and (verbose or name is not None):
        click.echo(_FORM.format(part=name or "PART"))


_FORM = """
Set one with: rbml train SOURCE --set strategy.{part}.OPTION=VALUE. A learned number has OPTION.value, .per (all, layer,
tensor, element), .per_step, .bounds and .learn. Choose the parts in order with: --set strategy='NAME, NAME, ...'"""


_OWN = {"data": ("part", "root", "seed", "labelled"), "tasks": ("ways", "shots", "queries")}
"""Arguments that commands set by options of their own (or by themselves): --set cannot set them."""


def _show_options(options: tuple[catalogue.Option, ...]) -> None:
    """Print a line for every option: its name, its default and what it is."""
    names = max((len(option.name) for option in options), default=0)
    values = min(max((len(option.default) for option in options), default=0), 18)
    for option in options:
        click.echo(f"      {option.name:{names}}  {option.default:{values}}  {option.text}".rstrip())
