"""Options of the command line that stand for the entries of a recipe: one source of names, types, defaults and help."""

from __future__ import annotations

import inspect
import math
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import click

from rbml import algorithms, hypergrad, models
from rbml.errors import UsageError, unknown
from rbml.strategy.parsing import fitted, nested_away, parse
from rbml.training.recipe import Recipe, protocol

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}


NAMES: dict[str, Mapping[str, Any]] = {"algorithm": algorithms.ALL, "engine": hypergrad.ALL, "model": models.ALL}

SECTIONS = {"split": "Tasks", "algorithm": "Learner", "model": "Model", "meta_steps": "Training across tasks"}
"""The entry of a recipe with which each section of the help begins."""

TABLES = {"strategy": "settings", "learner": "options", "engine": "engine_options"}
"""What ``--set`` and the tables of a file address, and the entry of a recipe in which it is kept."""

_BY_SET = {"data", "strategy", *TABLES.values()}


def recipe_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every entry of a recipe that is one value; one that is not given comes as ``None``."""
    helps = _described()
    for field in reversed(fields(Recipe)):
        if field.name in _BY_SET:
            continue
        kind = TYPES.get(str(field.type).split(" |")[0], str)
        name = f"--{field.name.removesuffix('_file').replace('_', '-')}"
        name = f"{name}/--no-{name[2:]}" if kind is bool else name
        text, _, default = helps[field.name].partition("; None is ")
        text += f": {', '.join(NAMES[field.name])}" if field.name in NAMES else ""
        default = default or ("no" if field.default is False else str(field.default))
        text = f"{text[0].upper()}{text[1:]}.  [default: {default}]"
        metavar = "FILE" if field.name.endswith("_file") else {int: "N", float: "X", bool: None}.get(kind, "NAME")
        function = click.option(name, field.name, type=kind, metavar=metavar, default=None, help=text)(function)
    return function


def setting_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--set`` and ``--config``: what a recipe holds that is not one value."""
    by_name = click.option(
        "--set",
        "settings",
        metavar="NAME=VALUE",
        multiple=True,
        help="Set any option of the strategy (strategy.PART.ARGUMENT, and of a number .value, .per, .per_step, "
        ".bounds, .learn), its parts in order (strategy='weight_decay, momentum, sgd'), an option of the preset or "
        "learner (learner.adapt='head.*'), or of the engine (engine.store=segments). May be given again. "
        "See: rbml list strategies NAME.",
    )
    by_file = click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A TOML file of any of these entries (data, ways, ...) and of tables [strategy.PART.ARGUMENT], [learner], "
        "[engine]. What is on the command line goes before it.",
    )
    return by_name(by_file(function))


def gathered(
    source: str | None, given: dict[str, Any], settings: tuple[str, ...], config: Path | None
) -> tuple[str | None, dict[str, Any]]:
    """Return the source, and what is set of a recipe by options, settings and a file.

    Raises:
        UsageError: if a setting or the file cannot be understood, or a strategy file is not there.
    """
    chosen = merged(from_file(config) if config else {}, given, from_settings(settings))
    own = chosen.pop("data", None)
    file = chosen.get("strategy_file")
    if file and not Path(file).is_file():
        form = f"--set strategy={shlex.quote(file)}"
        raise UsageError(f"there is no file {file}: the parts of a strategy are named with {form}")
    return absolute(source or own), chosen


class RecipeCommand(click.Command):
    """A command whose help shows the entries of a recipe in sections, after its own options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        title = "Options"
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                title = "Options" if parameter.is_eager else SECTIONS.get(parameter.name or "", title)
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def recipe_of(source: str, given: dict[str, Any]) -> Recipe:
    """Return the recipe of a source's protocol with what was given in place of it."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(Recipe(), data=source, **(protocol(source, given.get("ways"), given.get("algorithm")) | chosen))


def from_file(path: Path) -> dict[str, Any]:
    """Return the entries of a recipe that a TOML file sets.

    Raises:
        UsageError: if the file is not TOML, or has an entry that a recipe has not.
    """
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}") from error
    strategy = content.pop("strategy", {})
    chosen: dict[str, Any] = {"options": nested_away(content.pop("learner", {}))}
    if isinstance(content.get("engine"), Mapping):
        engine = dict(content.pop("engine"))
        chosen |= {"engine": engine.pop("name", None), "engine_options": engine}
    if isinstance(strategy, Mapping):
        table = nested_away({name: value for name, value in strategy.items() if name != "chain"})
        chosen["settings"] = {address: _as_json(value) for address, value in table.items()}
        strategy = strategy.get("chain")
    if strategy is not None:
        chosen["strategy"] = ", ".join(strategy) if isinstance(strategy, list) else str(strategy)
    hints = get_type_hints(Recipe)
    for name, value in content.items():
        if name not in hints or name in TABLES.values():
            raise unknown(f"entry of {path}", name, {*hints, *TABLES} - {*TABLES.values()})
        chosen[name] = fitted(value, hints[name], f"{name} in {path}")
    return chosen


def from_settings(entries: Iterable[str]) -> dict[str, Any]:
    """Return the entries of a recipe that ``--set NAME=VALUE`` sets.

    Raises:
        UsageError: if one is not of this form, or sets something else than the strategy or the learner.
    """
    chosen: dict[str, Any] = {entries: {} for entries in TABLES.values()}
    for entry in entries:
        name, equals, text = (word.strip() for word in entry.partition("="))
        table, _, address = name.partition(".")
        if not equals:
            raise UsageError(f"--set needs NAME=VALUE, such as strategy.sgd.lr.per=layer, not {entry!r}")
        if table not in TABLES and table in {field.name for field in fields(Recipe)}:
            raise UsageError(f"--set is for the strategy and the learner: say --{name.replace('_', '-')} {text}")
        if table not in TABLES:
            raise unknown("table of settings", table, TABLES)
        if not address and table != "strategy":
            example = {"learner": "learner.adapt='head.*'", "engine": "engine.store=segments"}[table]
            raise UsageError(f"--set {table} needs an option, such as {example}, not {entry!r}")
        if table == "strategy" and address in ("", "chain"):
            chosen["strategy"] = text
        else:
            chosen[TABLES[table]][address] = _as_json(parse(text))
    return chosen


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of several layers, the later before the earlier; their settings and options are joined."""
    joined: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            if isinstance(value, Mapping):
                value = {**(joined.get(name) or {}), **value} or None
            if value is not None:
                joined[name] = value
    return joined


def _as_json(value: Any) -> Any:
    """Return lists for tuples, and nothing for a bound that is infinite: JSON has neither."""
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def absolute(source: str | None) -> str | None:
    """Return a source with the folder that it may name made absolute: a run may go on from somewhere else."""
    kind, _, path = (source or "").partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if kind == "folder" and path else source


def _described() -> dict[str, str]:
    """Return what the docstring of Recipe says of each entry."""
    text = inspect.getdoc(Recipe) or ""
    entries = re.findall(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(line.split()).replace("``", "").rstrip(".") for name, line in entries}
