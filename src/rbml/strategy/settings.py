"""Change any option of a strategy by its address, such as ``sgd.lr.per``.

An address is ``PART.ARGUMENT``, or ``PART.ARGUMENT.FIELD`` if the argument may be a :class:`Hyper`. Every part records
the function and arguments that made it (:func:`rbml.strategy.part`). To change a part, its function is called again
with other arguments, so that this module needs no knowledge of any particular part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, cast, get_type_hints

from rbml import strategy
from rbml.errors import UsageError, unknown
from rbml.strategy.base import Part
from rbml.strategy.chain import Strategy, chain
from rbml.strategy.parsing import LEARNABLE, alternatives, fitted, learnable, nested_away
from rbml.strategy.weights import Weights


def changed(plan: Strategy, settings: Mapping[str, Any], names: str | None = None) -> Strategy:
    """Return a strategy with some options changed, or with another chain of parts.

    Setting a number, ``{"sgd.lr": 0.1}``, makes it fixed, as in ``sgd(0.1)``. Setting a field of a fixed number,
    ``{"sgd.lr.per": "layer"}``, makes the number learned, unless ``learn`` is set to false or ``value`` is the only
    field set.

    Args:
        plan: the strategy.
        settings: the new values by address; nested tables are accepted too.
        names: the parts of the new chain in order, such as ``"weight_decay, momentum, sgd"``. A part that ``plan``
            contains keeps its options, any other starts with its defaults. ``"late=weight_decay"`` gives a second
            ``weight_decay`` the name ``late``.

    Raises:
        UsageError: if a part, an argument, a field or a value is invalid; the message names the closest valid one.

    >>> from rbml.strategy import chain, sgd
    >>> from rbml.strategy.serialize import described
    >>> described(changed(chain(sgd(0.1)), {"sgd.lr.per": "layer", "momentum.nesterov": True}, "momentum, sgd"))
    'momentum(decay 0.9, nesterov), sgd(lr 0.1 learned per layer)'
    """  # noqa: DOC501  `_no_such_part` returns the UsageError
    drafts = [_draft_of(part) for part in plan.parts] if names is None else _drafts_by_name(names, plan)
    wanted: dict[str, dict[str, Any]] = {}
    for address, value in nested_away(settings).items():
        name, _, rest = address.partition(".")
        if name not in [draft.name for draft in drafts]:
            raise _no_such_part(name, [draft.name for draft in drafts])
        wanted.setdefault(name, {})[rest] = value
    return chain(*(draft.make(wanted.get(draft.name, {})) for draft in drafts))


def frozen(plan: Strategy) -> Strategy:
    """Return the strategy with all of its numbers fixed."""
    return chain(*(keeping(part, part.hypers) for part in plan.parts))


@dataclass(frozen=True)
class Draft:
    """A part that is about to be made, or kept unchanged.

    Attributes:
        name: the name of the part in the strategy.
        by: the function of :data:`rbml.strategy.ALL` that makes it; ``None`` for a part made in another way.
        settings: the arguments of that function so far.
        part: the existing part, if there is one.
    """

    name: str
    by: str | None
    settings: Mapping[str, Any]
    part: Part | None

    def make(self, wanted: Mapping[str, Any]) -> Part:
        """Return the part with some settings changed.

        Args:
            wanted: the new values by the rest of their address: ``{"lr.per": "layer"}``.

        Raises:
            UsageError: if an option or a field is unknown, a value does not fit, or a required argument is missing.
        """
        if self.part is not None and not wanted:
            return self.part
        settings, fields = dict(self.settings), dict[str, dict[str, Any]]()
        kept = self._frozen()
        hints = self._hints()
        for rest, value in wanted.items():
            argument, _, field = rest.partition(".")
            # An explicit `learn` overrides what was frozen before. Networks (Weights) have no other field.
            if field == "learn":
                kept = [name for name in kept if name != argument]
            if field == "learn" and argument in self._tensors():
                kept += [] if fitted(value, bool, f"{self.name}.{rest}") else [argument]
            elif argument not in hints:
                raise self._no_such_option(argument, hints)
            elif field:
                fields.setdefault(argument, {})[field] = value
            else:
                settings[argument] = fitted(value, hints[argument], f"{self.name}.{argument}")
        for argument, values in fields.items():
            where = f"{self.name}.{argument}"
            settings[argument] = _with_fields(settings.get(argument), values, hints[argument], where)
        if missing := [argument for argument in hints if argument not in settings]:
            raise UsageError(f"{self.name} needs {' and '.join(missing)}: set {self.name}.{missing[0]}")
        try:
            part = _makers()[str(self.by)](**{**settings, "name": self.name})
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from error
        return keeping(part, [name for name in kept if name in part.hypers])

    def _hints(self) -> dict[str, Any]:
        if self.by is None:
            raise UsageError(
                f"{self.name} was not made by a function of rbml.strategy.ALL, so its options cannot be set: "
                "change them where it is made"
            )
        maker = _makers()[self.by]
        hints = get_type_hints(maker)
        return {name: hints[name] for name in signature(maker).parameters if name != "name"}

    def _tensors(self) -> list[str]:
        hypers = {} if self.part is None else self.part.hypers
        return [name for name, quantity in hypers.items() if isinstance(quantity, Weights)]

    def _frozen(self) -> list[str]:
        """Return the quantities that were frozen after the part was made, by :func:`frozen` or ``learn``."""
        hypers = {} if self.part is None else self.part.hypers
        learned = {name for name in hypers if getattr(self.settings.get(name), "learn", name not in self.settings)}
        return [name for name in learned if not hypers[name].learn]

    def _no_such_option(self, argument: str, hints: Mapping[str, Any]) -> UsageError:
        if not argument:
            options = f"one of its options: {', '.join(hints)}" if hints else "another part: this one has no options"
            return UsageError(f"{self.name} is a whole part and takes no value: set {options}")
        return unknown(f"option of {self.name}", argument, [*hints, *self._tensors()])


def _makers() -> Mapping[str, Callable[..., Part]]:
    return cast("Mapping[str, Callable[..., Part]]", strategy.ALL)


def _draft_of(part: Part) -> Draft:
    made = part.origin if part.origin is not None and part.origin.by in strategy.ALL else None
    return Draft(part.name, made.by if made else None, dict(made.settings) if made else {}, part)


def _drafts_by_name(names: str, own: Strategy) -> list[Draft]:
    known = {part.name: _draft_of(part) for part in own.parts}
    drafts = []
    for entry in names.split(","):
        name, _, by = (word.strip() for word in entry.partition("="))
        by = by or (known[name].by or name if name in known else name)
        if name in known and known[name].by in (by, None):
            drafts.append(known[name])
        elif by in strategy.ALL:
            drafts.append(Draft(name, by, defaults(by), None))
        else:
            raise unknown("strategy", by, {*strategy.ALL, *known})
    return drafts


def defaults(by: str) -> dict[str, Any]:
    """Return the default arguments of a function of :data:`rbml.strategy.ALL`.

    Raises:
        UsageError: if there is no such function.
    """  # noqa: DOC501  `unknown` returns the UsageError
    if by not in strategy.ALL:
        raise unknown("strategy", by, strategy.ALL)
    parameters = signature(_makers()[by]).parameters.values()
    return {one.name: one.default for one in parameters if one.default is not Parameter.empty}


def _no_such_part(name: str, own: list[str]) -> UsageError:
    now = ", ".join(own)
    if name in strategy.ALL:
        return UsageError(
            f"the strategy is {now} and has no {name}: insert it at the right place in the chain, "
            f'for example strategy="{name}, {now}"'
        )
    # A misspelled name is more likely one of the few parts at hand than one of all that exist.
    near = get_close_matches(name, own, n=1) or not get_close_matches(name, strategy.ALL, n=1)
    return unknown("part of the strategy" if near else "strategy", name, own if near else strategy.ALL)


def _with_fields(old: Any, values: Mapping[str, Any], hint: Any, where: str) -> Any:
    """Return a number with some of its fields set; a fixed number stays fixed if only its value is set."""
    kind = next((one for one in alternatives(hint) if one in LEARNABLE), None)
    if kind is None:
        raise UsageError(f"{where} is not a number that can be learned and has no {next(iter(values))}: set {where}")
    new = learnable(kind, old, values, where)
    fixed = not isinstance(old, kind) and values.keys() == {"value"}
    return replace(new, learn=False) if fixed else new


def keeping(part: Part, names: Iterable[str]) -> Part:
    """Return the part with some of its quantities fixed.

    The part is copied, not made again, so that its origin and its other quantities do not change.
    """
    kept = set(names)
    if not any(part.hypers[name].learn for name in kept):
        return part
    hypers: dict[str, Any] = dict(part.hypers)
    return replace(part, hypers=hypers | {name: replace(hypers[name], learn=False) for name in kept})
