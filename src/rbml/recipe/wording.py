"""What is wrong with a recipe, in words."""

from __future__ import annotations

from pydantic import ValidationError

from rbml.errors import UsageError, unknown
from rbml.recipe import entries

_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_BY_TYPE = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "dict": "a table of options",
    "tuple": "a list",
    "model": "a table",
}


def kind_in_words(kind: type) -> str:
    """Return what a type asks for."""
    return _KINDS[kind]


def explained(error: ValidationError, place: str, known: list[str]) -> UsageError:
    """Return the first problem that pydantic has found as an error in our words.

    Args:
        error: what pydantic says.
        place: the section, as it stands in the recipe.
        known: the entries of the section.
    """
    first = error.errors()[0]
    location = [one for one in (place, *first["loc"]) if one != ""]
    name, value, kind = entries.short(location), first["input"], first["type"]
    limits = first.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown(f"entry of {place or 'a recipe'}", str(first["loc"][-1]), known)
    if kind == "missing":
        return UsageError(f"{name} is missing: set it")
    if kind == "literal_error":
        choices = [one.strip(" '") for one in limits["expected"].replace(" or ", ", ").split(",")]
        return unknown(f"choice of {name}", str(value), choices)
    if kind == "greater_than_equal":
        return UsageError(f"{name} must be at least {limits['ge']}, not {value}")
    if kind == "greater_than":
        return UsageError(f"{name} must be a number above {limits['gt']:g}, not {value}")
    if kind == "too_short":
        return UsageError(f"{name} must have at least one entry")
    words = _BY_TYPE.get(kind.partition("_")[0])
    return UsageError(f"{name} must be {words}, not {value!r}" if words else f"{name}: {first['msg']}")
