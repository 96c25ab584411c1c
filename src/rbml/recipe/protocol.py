"""The usual training protocol of a data source, where it differs from a recipe's defaults.

Each source file may have a constant ``PROTOCOL`` with such entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbml import catalogue
from rbml.recipe.sections import Data, Recipe


def protocol(source: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that a source's ``PROTOCOL`` sets, by short names.

    A protocol is a list of cases ``(condition, entries)``; a condition lists the values that an entry may have. Later
    cases take precedence.

    Args:
        source: such as ``"omniglot"`` or ``"folder:PATH"``.
        given: what the user has set, by short names.
    """
    own = {name: value for name, value in given.items() if value is not None}
    found: dict[str, Any] = {}
    for condition, values in catalogue.constant("data", Data.of(source).name, "PROTOCOL") or []:
        asked = {**Recipe().short(), **found, **own}  # a later case may ask for what an earlier one has set
        if all(asked.get(name) in allowed for name, allowed in condition.items()):
            found |= values
    return found


def recipe_of(source: str, given: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a source's protocol; what was given takes precedence.

    Args:
        source: such as ``"omniglot"`` or ``"folder:PATH"``.
        given: entries by short names; ``None`` means not given.

    Raises:
        UsageError: for an unknown name, or a value that is not allowed.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    return Recipe.of(**({"data": source} | protocol(source, given) | chosen))
