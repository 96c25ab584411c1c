"""Convert values from the command line or a file to the types that a function expects."""

from __future__ import annotations

import ast
import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rbml.errors import UsageError, unknown
from rbml.strategy.hyper import Hyper, Scalar

_LITERALS = {"true": "True", "false": "False", "none": "None", "null": "None", "inf": "1e999"}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}
LEARNABLE: dict[type[Hyper | Scalar], dict[str, Any]] = {kind: get_type_hints(kind) for kind in (Hyper, Scalar)}
"""The kinds of number that can be learned, each with its fields and their types."""

_MISFIT = object()


def parse(text: str) -> Any:
    """Return the value that a text stands for: a number, true, false, none, a list of these, or else the text itself.

    >>> parse("0.1"), parse("true"), parse("[0, none]"), parse("layer")
    (0.1, True, [0, None], 'layer')
    """
    literal = re.sub(r"\b[A-Za-z]+\b", lambda word: _LITERALS.get(word[0].lower(), word[0]), text.strip())
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return text.strip()
    return value if value is None or isinstance(value, bool | int | float | str | list | tuple | dict) else text.strip()


def nested_away(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested tables as one flat table of addresses.

    >>> nested_away({"sgd": {"lr": {"per": "layer"}}, "momentum.nesterov": True})
    {'sgd.lr.per': 'layer', 'momentum.nesterov': True}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        address = f"{before}{name}"
        flat |= nested_away(value, f"{address}.") if isinstance(value, Mapping) and value else {address: value}
    return flat


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union type, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def fitted(value: Any, hint: Any, where: str) -> Any:
    """Return a plain value converted to the expected type.

    Args:
        value: a plain value: a number, a text, true or false, none, or a list or table of these.
        hint: the expected type, as returned by ``typing.get_type_hints``.
        where: the name of the value in error messages.

    Raises:
        UsageError: if the value does not fit; among choices, the message names the closest one.
    """  # noqa: DOC501  `unknown` returns the UsageError
    found = _as(value, hint)
    if found is not _MISFIT:
        return found
    choices = [choice for one in alternatives(hint) if get_origin(one) is Literal for choice in get_args(one)]
    if choices and isinstance(value, str):
        raise unknown(f"choice of {where}", value, map(str, choices))
    raise UsageError(f"{where} must be {_kind(hint)}, not {value!r}")


def _as(value: Any, hint: Any) -> Any:
    """Return the value converted to the type, or ``_MISFIT``."""
    kinds = alternatives(hint)
    if len(kinds) > 1:
        return next((found for kind in kinds if (found := _as(value, kind)) is not _MISFIT), _MISFIT)
    if get_origin(hint) is Literal:
        return value if value in get_args(hint) else _MISFIT
    if get_origin(hint) in (tuple, list, Sequence):
        return _as_list(value, hint)
    if hint is type(None):
        return None if value is None or value == "none" else _MISFIT
    if hint in LEARNABLE:
        return _as_learnable(value, hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, float, str) or (hint is int and not isinstance(value, bool)):
        return value if isinstance(value, hint) else _MISFIT
    return value if hint is Any else _MISFIT


def _as_list(value: Any, hint: Any) -> Any:
    kinds = get_args(hint)
    if not isinstance(value, list | tuple):
        return _MISFIT
    if get_origin(hint) is not tuple or (len(kinds) == 2 and kinds[1] is Ellipsis):
        kinds = (kinds[0],) * len(value)
    found = tuple(_as(one, kind) for one, kind in zip(value, kinds, strict=False))
    return found if len(kinds) == len(value) and _MISFIT not in found else _MISFIT


def _as_learnable(value: Any, kind: type[Hyper | Scalar]) -> Any:
    if not isinstance(value, Mapping) or "value" not in value:
        return value if isinstance(value, kind) else _MISFIT
    return learnable(kind, None, value, "a learned number")


def learnable(kind: type[Hyper | Scalar], old: Any, fields: Mapping[str, Any], where: str) -> Hyper | Scalar:
    """Return a number of a kind that can be learned, with some of its fields set.

    Args:
        kind: the kind of number.
        old: the number before: a plain one, or one of that kind.
        fields: the fields to set, as plain values.
        where: the name of the number in error messages.

    Raises:
        UsageError: if a field is unknown, a value does not fit, or the start is not inside the bounds.
    """  # noqa: DOC501  `unknown` returns the UsageError
    hints = LEARNABLE[kind]
    for field in fields:
        if field not in hints:
            raise unknown(f"field of {where}", field, hints)
    given = {field: fitted(value, hints[field], f"{where}.{field}") for field, value in fields.items()}
    if "bounds" in given:
        given["bounds"] = tuple(None if end is None or math.isinf(end) else end for end in given["bounds"])
    if old is None and "value" not in given:
        raise UsageError(f"{where} has no value yet: set {where}.value too")
    try:
        return replace(old, **given) if isinstance(old, kind) else kind(**{"value": old, **given})
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _kind(hint: Any) -> str:
    """Return a description of the values that a type allows."""
    words = []
    for one in alternatives(hint):
        choices = get_args(one)
        if get_origin(one) is Literal:
            words.append(f"one of {', '.join(map(str, choices))}")
        elif get_origin(one) in (tuple, list, Sequence):
            several = get_origin(one) is not tuple or choices[-1] is Ellipsis
            words.append(f"a list of {'numbers' if several else len(choices)}")
        else:
            table = f"a table of {', '.join(LEARNABLE[one])}" if one in LEARNABLE else ""
            words.append(table or _KINDS.get(one, "a Python object, which only a program can give"))
    return " or ".join(dict.fromkeys(words))
