"""What is wrong with a recipe, as one-line error messages."""

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


def kind_name(kind: type) -> str:
    """Return the name of a type as an error message has it."""
    return _KINDS[kind]


def explained(error: ValidationError, place: str, known: list[str]) -> UsageError:
    """Return the first problem that pydantic has found as a ``UsageError``.

    Args:
        error: the error of pydantic.
        place: the name of the section in the recipe.
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
    expected = _BY_TYPE.get(kind.partition("_")[0])
    return UsageError(f"{name} must be {expected}, not {value!r}" if expected else f"{name}: {first['msg']}")
