"""Values that come as text or from a file, made to fit the type that a function expects."""

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

_WORDS = {"true": "True", "false": "False", "none": "None", "null": "None", "inf": "1e999"}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
LEARNABLE: dict[type[Hyper | Scalar], dict[str, Any]] = {kind: get_type_hints(kind) for kind in (Hyper, Scalar)}
"""The kinds of number that may be learned, each with its fields and their types."""

_MISFIT = object()


def parse(text: str) -> Any:
    """Return the value that a text means: a number, true, false, none, a list of such, or else the text itself.

    >>> parse("0.1"), parse("true"), parse("[0, none]"), parse("layer")
    (0.1, True, [0, None], 'layer')
    """
    spoken = re.sub(r"\b[A-Za-z]+\b", lambda word: _WORDS.get(word[0].lower(), word[0]), text.strip())
    try:
        value = ast.literal_eval(spoken)
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return text.strip()
    return value if value is None or isinstance(value, bool | int | float | str | list | tuple | dict) else text.strip()


def nested_away(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return tables within tables as one table of addresses.

    >>> nested_away({"sgd": {"lr": {"per": "layer"}}, "momentum.nesterov": True})
    {'sgd.lr.per': 'layer', 'momentum.nesterov': True}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        address = f"{before}{name}"
        flat |= nested_away(value, f"{address}.") if isinstance(value, Mapping) and value else {address: value}
    return flat


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union allows, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def fitted(value: Any, hint: Any, where: str) -> Any:
    """Return a plain value as the type that is expected.

    Args:
        value: a plain value: a number, a text, true or false, none, a list or a table of such.
        hint: the type, as ``typing.get_type_hints`` gives it.
        where: what it is for, as it is named to the user.

    Raises:
        UsageError: if it does not fit; of a choice, the nearest is named.
    """
    found = _as(value, hint)
    if found is not _MISFIT:
        return found
    choices = [choice for one in alternatives(hint) if get_origin(one) is Literal for choice in get_args(one)]
    if choices and isinstance(value, str):
        raise unknown(f"choice of {where}", value, map(str, choices))
    raise UsageError(f"{where} must be {_kind(hint)}, not {value!r}")


def _as(value: Any, hint: Any) -> Any:
    """Return the value as the type, or that it does not fit."""
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
    """Return a number that may be learned with some of its fields set.

    Args:
        kind: which kind of number.
        old: the number as it is: a plain one, or one of the kind.
        fields: the fields that are set, as plain values.
        where: how the number is named to the user.

    Raises:
        UsageError: if a field is none, a value does not fit, or the start does not lie inside the bounds.
    """
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
    """Return what a type asks for, in words."""
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
