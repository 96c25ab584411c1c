"""Saving and describing strategies: as plain values for JSON, and as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rbml import strategy
from rbml.errors import UsageError
from rbml.strategy.base import Origin, Part
from rbml.strategy.chain import Strategy, chain
from rbml.strategy.hyper import Hyper, Scalar
from rbml.strategy.parsing import LEARNABLE
from rbml.strategy.settings import Draft, defaults, keeping
from rbml.strategy.weights import Weights


def plain(plan: Strategy) -> list[dict[str, Any]]:
    """Return a strategy as plain values for JSON: for every part its function, the arguments, and what is learned.

    Raises:
        UsageError: if a part was not made by a function of :data:`rbml.strategy.ALL`, or its arguments are not plain
            values.
    """
    return [
        {"by": _origin(part).by, "settings": _plain(part.name, dict(_origin(part).settings)), "learned": _learned(part)}
        for part in plan.parts
    ]


def from_plain(parts: Iterable[Mapping[str, Any]]) -> Strategy:
    """Return the strategy that plain values describe; the inverse of :func:`plain`.

    Raises:
        UsageError: if a function, an argument or a value is unknown to this version of rbml.
    """
    made = []
    for entry in parts:
        by, settings = entry["by"], dict(entry["settings"])
        name = settings.pop("name", by)
        part = Draft(name, by, defaults(by), None).make(settings)
        made.append(keeping(part, [key for key in part.hypers if key not in entry["learned"]]))
    return chain(*made)


def described(plan: Strategy) -> str:
    """Return a readable description of a strategy, part by part: what is learned and what differs from the default."""
    return ", ".join(_described_part(part) for part in plan.parts)


def _origin(part: Part) -> Origin:
    if part.origin is None or part.origin.by not in strategy.ALL:
        raise UsageError(
            f"the part {part.name} was not made by a function of rbml.strategy.ALL, so it cannot be saved: "
            "add its function to that table"
        )
    return part.origin


def _plain(where: str, value: Any) -> Any:
    if isinstance(value, Hyper | Scalar):
        return {field: _plain(where, getattr(value, field)) for field in LEARNABLE[type(value)]}
    if isinstance(value, Mapping):
        return {key: _plain(f"{where}.{key}", one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(where, one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UsageError(
        f"{where} is a {type(value).__name__}, which cannot be saved: use numbers, texts, lists, tables or None"
    )


def _described_part(part: Part) -> str:
    made = part.origin
    usual = defaults(made.by) if made and made.by in strategy.ALL else {}
    notes, learned = [], _learned(part)
    for name, value in made.settings.items() if made else ():
        if isinstance(value, bool):
            notes += [name if value else f"no {name}"] if value != usual.get(name) else []
        elif isinstance(value, Hyper | Scalar) or name in part.hypers:
            notes.append(f"{name} {_number(value, name in learned)}")
        elif name != "name" and value != usual.get(name):
            notes.append(f"{name} {value}")
    notes += [f"learned {name}" for name in learned if isinstance(part.hypers[name], Weights)]
    return part.name + (f"={made.by}" if made and made.by != part.name else "") + f"({', '.join(notes)})"


def _number(value: Any, learned: bool) -> str:
    if isinstance(value, Scalar):
        value = Hyper(value.value, "all", value.per_step, value.bounds, value.learn)
    if not isinstance(value, Hyper):
        return str(value)
    low, high = value.range
    start = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    parts = [f" per {value.per}" if value.per != "all" else "", " each step" if value.per_step else ""]
    return start + (" learned" if learned else "") + "".join(parts)


def _learned(part: Part) -> list[str]:
    return [name for name, quantity in part.hypers.items() if quantity.learn]
