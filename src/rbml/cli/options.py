"""Options of the command line that stand for the entries of a recipe: one source of names, types, defaults and help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import click

from rbml.training.recipe import PROTOCOLS, Recipe

TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool}


def recipe_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every entry of a recipe but ``data``; one that is not given comes as ``None``."""
    helps = _described()
    for field in reversed(fields(Recipe)):
        if field.name == "data":
            continue
        kind = TYPES.get(str(field.type).split(" |")[0], str)
        name = f"--{field.name.replace('_', '-')}"
        name = f"{name}/--no-{name[2:]}" if kind is bool else name
        default = "" if field.default is None else f"  [default: {field.default}]"
        option = click.option(name, field.name, type=kind, default=None, help=helps[field.name] + default)
        function = option(function)
    return function


def recipe_of(source: str, given: dict[str, Any]) -> Recipe:
    """Return the recipe of a source's protocol with what was given in place of it."""
    chosen = {name: value for name, value in given.items() if value is not None}
    return replace(Recipe(), data=source, **(PROTOCOLS.get(source, {}) | chosen))


def _described() -> dict[str, str]:
    """Return what the docstring of Recipe says of each entry."""
    text = inspect.getdoc(Recipe) or ""
    entries = re.findall(r"^    (\w+): (.+?)(?=^    \w+: |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: " ".join(line.split()).replace("``", "").rstrip(".") for name, line in entries}
