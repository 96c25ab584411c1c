"""A strategy written down: as plain values that JSON knows, and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rbml import strategy
from rbml.errors import UsageError
from rbml.strategy.base import Origin, Part, Strategy, chain
from rbml.strategy.hyper import Hyper, Scalar
from rbml.strategy.parsing import LEARNABLE
from rbml.strategy.settings import Draft, defaults, keeping
from rbml.strategy.weights import Weights


def plain(plan: Strategy) -> list[dict[str, Any]]:
    """Return a strategy as values that JSON knows: by what every part was made, of what, and what is learned.

    Raises:
        UsageError: if a part was not made by a function of :data:`rbml.strategy.ALL` from plain values.
    """
    return [
        {"by": _made(part).by, "settings": _plain(part.name, dict(_made(part).settings)), "learned": _learned(part)}
        for part in plan.parts
    ]


def from_plain(parts: Iterable[Mapping[str, Any]]) -> Strategy:
    """Return the strategy of plain values, the inverse of :func:`plain`.

    Raises:
        UsageError: if they are not those of a strategy that this rbml knows.
    """
    made = []
    for entry in parts:
        by, settings = entry["by"], dict(entry["settings"])
        name = settings.pop("name", by)
        part = Draft(name, by, defaults(by), None).make(settings)
        made.append(keeping(part, [key for key in part.hypers if key not in entry["learned"]]))
    return chain(*made)


def in_words(plan: Strategy) -> str:
    """Return a strategy as a person reads it, part by part: what is learned, and what is not at its default."""
    return ", ".join(_words(part) for part in plan.parts)


def _made(part: Part) -> Origin:
    if part.origin is None or part.origin.by not in strategy.ALL:
        raise UsageError(
            f"the part {part.name} was not made by a function of rbml.strategy.ALL: it cannot be written down"
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
    raise UsageError(f"{where} is a {type(value).__name__}, which cannot be written down as a plain value")


def _words(part: Part) -> str:
    made = part.origin
    usual = defaults(made.by) if made and made.by in strategy.ALL else {}
    said, learned = [], _learned(part)
    for name, value in made.settings.items() if made else ():
        if isinstance(value, bool):
            said += [name if value else f"no {name}"] if value != usual.get(name) else []
        elif isinstance(value, Hyper | Scalar) or name in part.hypers:
            said.append(f"{name} {_number(value, name in learned)}")
        elif name != "name" and value != usual.get(name):
            said.append(f"{name} {value}")
    said += [f"learned {name}" for name in learned if isinstance(part.hypers[name], Weights)]
    return part.name + (f"={made.by}" if made and made.by != part.name else "") + f"({', '.join(said)})"


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
