"""Options of the command line that stand for the entries of a recipe: one source of names, types, defaults and help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from rbml import algorithms, hypergrad, models
from rbml.training.recipe import Recipe, protocol

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}


NAMES: dict[str, Mapping[str, Any]] = {"algorithm": algorithms.ALL, "engine": hypergrad.ALL, "model": models.ALL}

SECTIONS = {"split": "Tasks", "algorithm": "Learner", "model": "Model", "meta_steps": "Training across tasks"}
"""The entry of a recipe with which each section of the help begins."""


def recipe_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every entry of a recipe but ``data``; one that is not given comes as ``None``."""
    helps = _described()
    for field in reversed(fields(Recipe)):
        if field.name == "data":
            continue
        kind = TYPES.get(str(field.type).split(" |")[0], str)
        name = f"--{field.name.replace('_', '-')}"
        name = f"{name}/--no-{name[2:]}" if kind is bool else name
        text, _, default = helps[field.name].partition("; None is ")
        text += f": {', '.join(NAMES[field.name])}" if field.name in NAMES else ""
        default = default or ("no" if field.default is False else str(field.default))
        text = f"{text[0].upper()}{text[1:]}.  [default: {default}]"
        metavar = None if kind is bool else {int: "N", float: "X"}.get(kind, "NAME")
        function = click.option(name, field.name, type=kind, metavar=metavar, default=None, help=text)(function)
    return function


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


def absolute(source: str | None) -> str | None:
    """Return a source with the folder that it may name made absolute: a run may go on from somewhere else."""
    kind, _, path = (source or "").partition(":")
    return f"{kind}:{Path(path).expanduser().absolute()}" if kind == "folder" and path else source


def _described() -> dict[str, str]:
    """Return what the docstring of Recipe says of each entry."""
    text = inspect.getdoc(Recipe) or ""
    entries = re.findall(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(line.split()).replace("``", "").rstrip(".") for name, line in entries}
