"""What is worth a warning in a user's examples: empty pictures, the same one twice, colour that is not seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rbml.data.batch import Inputs
from rbml.data.inputs import Modality

_FLAT = 8
"""A picture counts as empty if its pixels differ by at most this many of 255 levels."""

_NAMED = 3  # how many examples a warning names


def plain(modality: Modality) -> Modality:
    """Return how the examples themselves are read, where the modality makes features of them."""
    inner: Modality = getattr(modality, "inner", modality)
    return inner


def concerns(modality: Modality, raw: Sequence[Any], names: Sequence[str], labels: Sequence[Any] | None) -> list[str]:
    """Return a sentence for each thing that is worth a warning; few examples, or many, are not among them.

    Args:
        modality: how the examples are read.
        raw: the raw examples, of which each can be read.
        names: a name for each.
        labels: their classes, if they are known.

    Raises:
        DataError: naming what cannot be read.
    """
    own = plain(modality)
    stored = own.read(raw)
    look: Callable[[Sequence[Any]], list[str]] = getattr(own, "warnings", lambda raw: [])
    found = [*look(raw)]
    if empty := [name for name, is_empty in zip(names, blank(stored), strict=True) if is_empty]:
        found.append(f"{listed(empty)} {'has' if len(empty) == 1 else 'have'} no content: every pixel is alike")
    if labels is not None:
        found += _twice(keys(stored), names, labels)
    elif own.kind == "pictures":  # rows of tables and short texts are often alike
        found += _copies(keys(stored), names)
    return found


def blank(stored: Inputs) -> list[bool]:
    """Return which examples are pictures without content; of other inputs none are."""
    if not isinstance(stored, Tensor) or stored.dtype != torch.uint8 or stored.dim() != 4:
        return [False] * (len(stored) if isinstance(stored, Tensor) else len(next(iter(stored.values()))))
    flat = stored.flatten(2).short()
    result: list[bool] = (flat.amax(2) - flat.amin(2) <= _FLAT).all(1).tolist()
    return result


def keys(stored: Inputs) -> list[bytes]:
    """Return a key per example: equal for examples that are the same to the bit."""
    leaves = [stored] if isinstance(stored, Tensor) else list(stored.values())
    return [b"".join(leaf[row].contiguous().numpy().tobytes() for leaf in leaves) for row in range(len(leaves[0]))]


def _twice(found: Sequence[bytes], names: Sequence[str], labels: Sequence[Any]) -> list[str]:
    """Say which examples are the same: in two classes (one of the labels is wrong), or in one (it counts twice)."""
    clash: list[str] = []
    again: list[str] = []
    for other, place in _pairs(found):
        pair = f"{names[other]} and {names[place]}"
        (again if labels[other] == labels[place] else clash).append(pair)
    said = []
    if clash:
        said.append(f"{listed(clash)} are the same, but in two classes: one of the labels must be wrong")
    if again:
        said.append(f"{listed(again)} are the same: copies make the estimate too good, remove them")
    return said


def _copies(found: Sequence[bytes], names: Sequence[str]) -> list[str]:
    """Say which examples without labels are the same: whoever counts the predictions counts them twice."""
    again = [f"{names[other]} and {names[place]}" for other, place in _pairs(found)]
    return [f"{listed(again)} are the same: in a count of the predictions a copy counts twice"] if again else []


def _pairs(found: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return the place of the first example with the same key, and its own, for each that was there before."""
    first: dict[bytes, int] = {}
    places = [(first.setdefault(key, place), place) for place, key in enumerate(found)]
    return [(other, place) for other, place in places if other != place]


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are.

    >>> listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c (and 2 more)')
    """
    more = f" (and {len(names) - _NAMED} more)" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def features(modality: Modality, raw: Sequence[Any] | None, stored: Inputs) -> Mapping[str, Tensor]:
    """Return what baselines look at, by name, ``(n, d)`` each; nothing where the inputs themselves are all there is.

    Args:
        modality: how the examples are read; its ``plain_features`` says what is worth looking at, if it has one.
        raw: the raw examples; ``None`` where only the stored ones are at hand.
        stored: the examples as the modality stores them.
    """
    own, found = plain(modality), {}
    if own is not modality:
        ready = modality.ready(stored)
        assert isinstance(ready, Tensor)
        found["the backbone's features"] = ready
    if hasattr(own, "plain_features") and (own is modality or raw is not None):
        name, seen = own.plain_features(stored if own is modality else own.read(raw or []))
        found[name] = seen
    return found
