"""The command-line options for the entries of a recipe; their names, types, defaults and help come from one table.

Nothing here imports PyTorch before a recipe is read, so that ``rbml train --help`` is fast.
"""

from __future__ import annotations

import math
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from rbml import catalogue
from rbml.cli.topics import FIRST as TO_BEGIN
from rbml.cli.topics import write_topics
from rbml.errors import UsageError, unknown
from rbml.recipe import Data, Recipe
from rbml.recipe.entries import ENTRIES, TABLES, Entry
from rbml.recipe.messages import kind_name
from rbml.recipe.protocol import facts

FIRST = ("ways", "shots", "algorithm", "steps", "meta_steps")
"""The options to begin with, which the help shows first."""

_INTO = {"strategy": "settings", "learner": "options", "engine": "engine_options"}
"""Short names of the tables that ``--set`` and files can set; for the others it is ``TABLE_options``."""


def recipe_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every entry of a recipe that is a single value; the default of each is ``None``."""
    defaults = Recipe().short()
    for name, entry in reversed(ENTRIES.items()):
        if name != "strategy":  # --strategy is a file; the parts are set with --set
            function = _option(name, entry, defaults)(function)
    return function


def _option(name: str, entry: Entry, defaults: Mapping[str, Any]) -> Callable[..., Any]:
    flag = "--from" if name == "start" else f"--{name.removesuffix('_file').replace('_', '-')}"
    kind: Any = entry.kind
    extra: dict[str, Any] = {}
    metavar = {int: "N", float: "X", bool: None}.get(kind, "NAME")
    if name.endswith("_file") or name == "start":
        metavar = "RUN" if name == "start" else "FILE"
    if kind is bool:
        flag = f"{flag}/--no-{flag[2:]}"
    if name == "compile":  # --compile without a value means whole, as in rbml 0.1.0
        extra = {"is_flag": False, "flag_value": "whole"}
    if entry.choices and name != "statistics":
        metavar = "|".join(entry.choices)
    text = f"{entry.text[0].upper()}{entry.text[1:]}"
    text += f": {', '.join(catalogue.names(entry.family))}" if entry.family else ""
    value = defaults.get(name)
    default = entry.default or ({True: "yes", False: "no"}[value] if isinstance(value, bool) else value or 0)
    if value is None and not entry.default:
        default = "none"
    text = f"{text}.  [default: {default}]"
    return click.option(flag, name, type=kind, metavar=metavar, default=None, help=text, **extra)


def setting_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--set`` and ``--config``, for the entries of a recipe that are not single values."""
    by_name = click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        help="Set any option of the strategy (strategy.PART.ARGUMENT; a number also has .value, .per, .per_step, "
        ".bounds, .learn), its parts in order (strategy='weight_decay, momentum, sgd'), an option of the algorithm or "
        "learner (learner.adapt='head.*'), of the engine (engine.store=segments), the model (model.hidden=[40, 40]), "
        "the data (data.with_time=true) or the task (task.order=time). Can be repeated. "
        "See: rbml list strategies NAME.",
    )
    by_file = click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A TOML file with any of these entries (data, ways, ...) and tables [strategy.PART.ARGUMENT], [learner], "
        "[engine]. The command line takes precedence.",
    )
    return by_name(by_file(function))


class RecipeCommand(click.Command):
    """A command whose help shows the entries of a recipe by topic, the ones to begin with first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept ``--no-compile``, which rbml 0.1.0 had, for ``--compile no``."""
        return super().parse_args(ctx, ["--compile=no" if one == "--no-compile" else one for one in args])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        own = "Options"
        topics: dict[str, list[str]] = {TO_BEGIN: list(FIRST), own: []}
        for name, entry in ENTRIES.items():
            topics.setdefault(entry.group, []).extend([name] * (name not in FIRST))
        write_topics(self, ctx, formatter, topics, own)


def gathered(
    source: str | None, given: dict[str, Any], settings: tuple[str, ...], config: Path | None
) -> tuple[str | None, dict[str, Any]]:
    """Return the source, and the entries of a recipe that options, settings and a file set.

    Raises:
        UsageError: if a setting or the file cannot be understood, or a strategy file is not there.
    """
    chosen = merged(from_file(config) if config else {}, given, from_settings(settings))
    own = chosen.pop("data", None)
    file = chosen.get("strategy_file")
    if file and not Path(file).is_file():
        form = f"--set strategy={shlex.quote(file)}"
        raise UsageError(f"there is no file {file}: the parts of a strategy are named with {form}")
    several = own if source is None and isinstance(own, list) else mixture(source or own)
    if several:
        return "+".join(several), chosen | {"data": several}
    return absolute(source or own), chosen


def with_colour(source: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return entries of a recipe with the channels of a folder's pictures, where nothing else says them; tell so."""
    kind, _, path = source.partition(":")
    backbone = given.get("encoder") or given.get("model") or ""
    if kind != "folder" or not path or "+" in source or given.get("channels") or "channels" in facts(backbone):
        return given
    from rbml.cli.show import console
    from rbml.data.inputs.colourful import colourful

    if not colourful(Path(path)):
        return given
    console.print("The pictures have colours, which are used (--channels 3); --channels 1 reads them in grey")
    return given | {"channels": 3}


def mixture(source: str | None) -> list[str]:
    """Return the sources of ``"glyphs+omniglot"``; none where it is one source, which may have a plus in its path.

    >>> mixture("glyphs+omniglot"), mixture("folder:a+b")
    (['glyphs', 'omniglot'], [])
    """
    found = (source or "").split("+")
    known = all(Data.of(one).name in catalogue.names("data") for one in found)
    return [absolute(one) or one for one in found] if len(found) > 1 and known else []


def from_file(path: Path) -> dict[str, Any]:
    """Return the entries of a recipe that a TOML file sets, by short names.

    Raises:
        UsageError: if the file is not TOML, or has an entry that recipes do not have.
    """
    from rbml.strategy.parsing import nested_away

    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}") from error
    chosen: dict[str, Any] = {}
    strategy = content.pop("strategy", None)
    if isinstance(strategy, Mapping):
        table = nested_away({name: value for name, value in strategy.items() if name != "chain"})
        chosen["settings"] = {address: _as_json(value) for address, value in table.items()}
        strategy = strategy.get("chain")
    if strategy is not None:
        chosen["strategy"] = ", ".join(strategy) if isinstance(strategy, list) else str(strategy)
    for name in TABLES:
        if isinstance(content.get(name), Mapping):
            table = dict(content.pop(name))
            if name != "learner" and "name" in table:
                content[name] = table.pop("name")
            chosen[_into(name)] = _as_json(table if name != "learner" else nested_away(table))
    for name, value in content.items():
        if name != "data" and name not in ENTRIES:
            raise unknown(f"entry of {path}", name, {"data", *ENTRIES, *TABLES})
        chosen[name] = _as_kind(name, value, path)
    return chosen


def _as_kind(name: str, value: Any, path: Path) -> Any:
    kind = ENTRIES[name].kind if name in ENTRIES else str
    if name == "data" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return [absolute(one) for one in value]  # a mixture
    if name == "compile" and isinstance(value, bool):
        return value  # the switch of rbml 0.1.0
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UsageError(f"{name} in {path} must be {kind_name(kind)}, not {value!r}")
    return value


def from_settings(entries: Iterable[str]) -> dict[str, Any]:
    """Return the entries of a recipe that ``--set NAME=VALUE`` sets, by short names.

    Raises:
        UsageError: if one is not of this form, or sets something that has an option of its own.
    """
    found = list(entries)
    if not found:
        return {}
    from rbml.strategy.parsing import parse

    chosen: dict[str, Any] = {}
    for entry in found:
        name, equals, text = (word.strip() for word in entry.partition("="))
        table, _, address = name.partition(".")
        if not equals:
            raise UsageError(f"--set needs NAME=VALUE, such as strategy.sgd.lr.per=layer, not {entry!r}")
        if table not in TABLES and table in ENTRIES:
            raise UsageError(f"{table} has an option of its own: use --{table.replace('_', '-')} {text}")
        if table not in TABLES:
            raise unknown("table of settings", table, TABLES)
        if not address and table != "strategy":
            raise UsageError(f"--set {table} needs an option, such as {_EXAMPLES[table]}, not {entry!r}")
        if table == "strategy" and address in ("", "chain"):
            chosen["strategy"] = text
        else:
            chosen.setdefault(_into(table), {})[address] = _as_json(parse(text))
    return chosen


_EXAMPLES = {
    "learner": "learner.adapt='head.*'",
    "engine": "engine.store=segments",
    "model": "model.hidden=[40, 40]",
    "data": "data.with_time=true",
    "task": "task.order=time",
}


def _into(table: str) -> str:
    return _INTO.get(table, f"{table}_options")


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of several layers: later ones take precedence, and tables of options are joined."""
    joined: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, Mapping):
                value = {**(joined.get(name) or {}), **value} or None
            if value is not None:
                joined[name] = value
    return joined


def _as_json(value: Any) -> Any:
    """Return lists for tuples, and ``None`` for an infinite bound: JSON has neither."""
    if isinstance(value, Mapping):
        return {name: _as_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def absolute(source: str | None) -> str | None:
    """Return a source with its path, if it has one, made absolute: the run may be resumed from another folder."""
    kind, colon, path = (source or "").partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if colon and path else source
