"""New classes made from those that there are, so that a learner sees more of them: turned and mixed ones.

Shapes: B tasks, N ways, K examples of a class, C classes, ``...`` the shape of one example.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rbml.data.batch import Inputs
from rbml.errors import UsageError
from rbml.tasks.base import generator

TURNS = 4
"""Turned by 0, 90, 180 and 270 degrees."""

_PARTNER, _SHARE, _TURN = 101, 102, 103  # streams of a task's seed, besides the one from which its examples are drawn
_LEAST = 0.3  # the least share of either class: with less it would look like the other class alone


def turned_names(names: Sequence[str]) -> list[str]:
    """Return the names of all classes, first as they are, then turned by 90, 180 and 270 degrees."""
    return [f"{name}{f' turned by {90 * turn} degrees' * (turn > 0)}" for turn in range(TURNS) for name in names]


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Turn pictures counterclockwise, by as many quarter turns as their class says (Liu et al. 2020, arXiv:2003.00804).

    Args:
        x: ``(B, N * K, c, h, h)``.
        turns: ``(B, N)``, 0 to 3.
    """
    each = turns.repeat_interleave(x.shape[1] // turns.shape[1], 1).to(x.device)
    changed = x.clone()
    for turn in range(1, TURNS):
        places = each == turn
        changed[places] = x[places].rot90(turn, (-2, -1))
    return changed


def turns(seeds: Sequence[int], ways: int) -> Tensor:
    """Return by how many quarter turns every class of a task is turned, ``(B, N)``."""
    return torch.stack([torch.randint(TURNS, (ways,), generator=generator(seed, _TURN)) for seed in seeds])


def families(names: Sequence[str], ways: int) -> list[Tensor]:
    """Return the classes of each family that has at least ``ways``: a family is what is before the first slash.

    Args:
        names: of the classes.
        ways: N.

    Raises:
        UsageError: if there are no families, or none has so many classes.
    """
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        if "/" not in name:
            raise UsageError(
                f"tasks within a family need class names such as Greek/character01, and one is {name!r}: leave "
                "within out."
            )
        found.setdefault(name.partition("/")[0], []).append(place)
    large = [torch.tensor(places) for places in found.values() if len(places) >= ways]
    if not large:
        most = max(map(len, found.values()))
        raise UsageError(f"{ways} ways within a family, but the largest one has {most} classes: lower the ways.")
    return large


def partners(seeds: Sequence[int], ways: int, classes: int) -> Tensor:
    """Return for every class of a task the class that it is mixed with, ``(B, N)``."""
    found = [torch.randint(classes, (ways,), generator=generator(seed, _PARTNER)) for seed in seeds]
    return torch.stack(found)


def shares(seeds: Sequence[int], ways: int, probability: float) -> Tensor:
    """Return for every class its own share in the mixture, ``(B, N)``: 1 for those that are not mixed."""
    drawn = torch.stack([torch.rand(2, ways, generator=generator(seed, _SHARE)) for seed in seeds])
    return torch.where(drawn[:, 0] < probability, _LEAST + (1 - 2 * _LEAST) * drawn[:, 1], 1.0)


def mixed(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """Return ``share * x + (1 - share) * other``, in the type of x: a new class where the share is below 1.

    All examples of a class are mixed with the same other class and the same share, as Yao et al. 2022
    (arXiv:2106.02695) interpolate tasks.

    Args:
        x: ``(B, N * K, ...)``.
        other: as x, of the other classes.
        share: ``(B, N)``.
    """
    each = share.repeat_interleave(x.shape[1] // share.shape[1], 1).to(x.device)
    each = each.view(*each.shape, *[1] * (x.dim() - 2))
    found = each * x + (1 - each) * other
    return found.round().to(x.dtype) if not x.is_floating_point() else found.to(x.dtype)


def check(x: Inputs, turn: bool, mix: float) -> None:
    """Refuse examples from which no such classes can be made.

    Args:
        x: the examples ``(M, ...)``.
        turn: whether classes are turned.
        mix: the probability with which a class is mixed.

    Raises:
        UsageError: if turned classes are asked for and these are no square pictures, or mixed ones of what is not
            pictures or real numbers.
    """
    if not 0 <= mix <= 1:
        raise UsageError(f"mix_classes is a probability, 0 to 1, not {mix}.")
    shape = tuple(x.shape) if isinstance(x, Tensor) else "of several parts"
    if turn and (not isinstance(x, Tensor) or x.dim() != 4 or x.shape[-1] != x.shape[-2]):
        raise UsageError(f"turned classes need square pictures (M, channels, h, h), not inputs {shape}.")
    if mix and (not isinstance(x, Tensor) or not (x.is_floating_point() or x.dtype == torch.uint8)):
        raise UsageError(f"mixed classes need pictures or real numbers in one tensor, not inputs {shape}.")
