"""Invented characters: a few pen strokes each, and the hands that draw them.

A stroke is a walk of ``SPANS`` equal steps with turns between them: no turns make a straight line, equal turns an arc
or a loop, a sudden turn a corner. Each drawing bends and moves the walk a little and puts a smooth curve through it.

Shapes: S strokes, D drawings, C = SPANS + 1 control points, L = SPANS * STEPS + 1 points of a curve; the last axis is
(x, y), y downwards. Lengths are relative to the size of the character, unless pixels are mentioned.
"""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SPANS, STEPS = 12, 2

_KINDS = {"line": 0.36, "arc": 0.18, "wave": 0.06, "hook": 0.1, "corner": 0.2, "loop": 0.1}  # how often each is drawn
_LONE = {"arc": 0.28, "wave": 0.09, "hook": 0.16, "corner": 0.31, "loop": 0.16}
_INSIDE = 22.0  # pixels within which the pen's centre stays: the widest pen then leaves the border of 28x28 clear
_SHARP = 1.25  # radians: a turn beyond this is a corner; the loops of _turns stay below


class Character(NamedTuple):
    """What all drawings of a class share.

    Attributes:
        points: ``(S, C, 2)`` control points, in a box of size 1 around 0.
        smooth: ``(S, C)``, 0 at a corner, where the pen turns on the spot, and 1 elsewhere.
        size: how large it is usually drawn, in pixels of 28.
    """

    points: Floats
    smooth: Floats
    size: float


def invent(rng: np.random.Generator) -> Character:
    """Invent a character of one to four strokes, most of them touching one another."""
    strokes: list[Floats] = []
    smooth: list[Floats] = []
    count = rng.choice([1, 2, 3, 4], p=[0.27, 0.36, 0.24, 0.13])
    for _ in range(count):
        walk, corners = _stroke(rng, lone=count == 1)
        if strokes:
            walk = walk + _join(rng, walk, strokes)
        strokes.append(walk)
        smooth.append(corners)
    points = np.stack(strokes)
    low, high = points.min((0, 1)), points.max((0, 1))
    unit = (points - (low + high) / 2) / max((high - low).max(), 0.3)
    return Character(unit, np.stack(smooth), float(np.clip(rng.normal(18.0, 2.6), 9.0, 22.0)))


def draw(character: Character, rng: np.random.Generator, drawings: int) -> Floats:
    """Return the curves of new drawings of a character, ``(D, S, L, 2)`` in pixels of 28, centre ``(14, 14)``."""
    return _placed(_curves(_bent(character, rng, drawings), character.smooth), character.size, rng)


def _stroke(rng: np.random.Generator, lone: bool) -> tuple[Floats, Floats]:
    """Return a walk ``(C, 2)`` of size about 1 that starts at 0, and which of its points are smooth ``(C,)``."""
    if lone or rng.random() < 0.3:  # two parts, so that a lone stroke is never just a line
        half = int(rng.integers(5, SPANS - 4))
        turns = np.concatenate([_turns(rng, half, _LONE if lone else _KINDS), _turns(rng, SPANS - half, _KINDS)])
    else:
        turns = _turns(rng, SPANS, _KINDS)
    heading = _heading(rng) + np.cumsum(turns)
    steps = np.stack([np.cos(heading), np.sin(heading)], -1) * rng.lognormal(0.0, 0.2, 2)
    walk = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    length = 0.06 if rng.random() < 0.04 and not lone else rng.lognormal(0.0, 0.35)  # the first is a dot
    smooth = np.concatenate([[1.0], np.abs(turns[1:]) < _SHARP, [1.0]])
    return walk * (length / max(np.ptp(walk, axis=0).max(), 1e-6)), smooth


def _heading(rng: np.random.Generator) -> float:
    """Draw a direction: across and downwards are the most common in writing."""
    quarter = rng.choice([0.0, pi / 2, pi / 4, 3 * pi / 4, pi], p=[0.34, 0.34, 0.12, 0.12, 0.08])
    return float(quarter + rng.normal(0.0, 0.12))


def _turns(rng: np.random.Generator, spans: int, kinds: dict[str, float]) -> Floats:
    """Return the turn before each of ``spans`` spans, in radians: none, or those of an arc, a wave, a hook ..."""
    kind = rng.choice(list(kinds), p=list(kinds.values()))
    side = rng.choice([-1.0, 1.0])
    room = 0.5 + 0.5 * spans / SPANS  # a short part turns less, else it would be a scribble
    turns = np.zeros(spans)
    if kind == "arc":
        turns[1:] = room * rng.uniform(0.8, 4.2) / spans
    elif kind == "wave":
        turns[1:] = room * rng.uniform(3.0, 6.0) / spans * np.where(np.arange(1, spans) < spans / 2, 1.0, -1.0)
    elif kind == "hook":
        turns[spans // 2 :] = room * rng.uniform(1.5, 4.0) / (spans - spans // 2)
    elif kind == "corner":
        turns[rng.integers(spans // 3, spans - spans // 3 + 1)] = rng.uniform(1.35, 2.5)
    elif kind == "loop":
        turns[1:] = 2 * pi / max(spans, 6) * rng.uniform(0.9, 1.1)
    turns *= side
    return turns


def _join(rng: np.random.Generator, walk: Floats, strokes: list[Floats]) -> Floats:
    """Return the shift ``(2,)`` of a new stroke: onto a point of an earlier one, or somewhere beside it."""
    earlier = strokes[rng.integers(len(strokes))]
    at = earlier[rng.choice([0, SPANS, SPANS // 2, int(rng.integers(SPANS))])]
    own = walk[rng.choice([0, 0, SPANS, SPANS // 2])]
    if rng.random() < 0.25:
        at = earlier.mean(0) + rng.uniform(-0.7, 0.7, 2)
    return np.asarray(at - own)


def _bent(character: Character, rng: np.random.Generator, drawings: int) -> Floats:
    """Return the control points of each drawing ``(D, S, C, 2)``: moved, stretched, bent and a little shaky."""
    noise = rng.standard_normal((drawings, len(character.points), SPANS + 4, 2))
    along = np.linspace(-0.5, 0.5, SPANS + 1)[:, None]
    moved = 0.03 * noise[:, :, 0, None] + 0.09 * noise[:, :, 1, None] * along
    bow = 0.035 * noise[:, :, 2, None] * (1 - 4 * along**2)
    return character.points + moved + bow + 0.009 * noise[:, :, 3:]


def _curves(points: Floats, smooth: Floats) -> Floats:
    """Return Catmull-Rom curves ``(D, S, L, 2)`` through control points; the tangent is 0 where they are not smooth."""
    padded = np.concatenate([points[..., :1, :], points, points[..., -1:, :]], axis=-2)
    tangents = (padded[..., 2:, :] - padded[..., :-2, :]) / 2 * smooth[..., None]
    start, end = points[..., :-1, None, :], points[..., 1:, None, :]
    leave, arrive = tangents[..., :-1, None, :], tangents[..., 1:, None, :]
    t = np.arange(STEPS)[:, None] / STEPS
    rise = 3 * t**2 - 2 * t**3
    pieces = (1 - rise) * start + rise * end + (t**3 - 2 * t**2 + t) * leave + (t**3 - t**2) * arrive
    flat = pieces.reshape(*points.shape[:-2], SPANS * STEPS, 2)
    return np.concatenate([flat, points[..., -1:, :]], axis=-2)


def _placed(curves: Floats, size: float, rng: np.random.Generator) -> Floats:
    """Scale, turn, slant and shift each drawing as a whole, and keep it inside the 28x28 pixels."""
    noise = rng.standard_normal((len(curves), 7))
    angle, slant = 0.09 * noise[:, 0], 0.12 * noise[:, 1]
    scale = size * np.exp(0.15 * noise[:, 2, None] + 0.09 * noise[:, 3:5])
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    shear = np.stack([np.ones_like(slant), slant, np.zeros_like(slant), np.ones_like(slant)], -1).reshape(-1, 2, 2)
    affine = turn @ shear * scale[:, None, :]
    placed: Floats = np.einsum("dij,dslj->dsli", affine, curves)
    low, high = placed.min((1, 2)), placed.max((1, 2))
    shrink = np.minimum(1.0, _INSIDE / (high - low).max(1))[:, None]
    room = np.maximum(0.0, _INSIDE - shrink * (high - low)) / 2
    centre = 14.0 + np.clip(1.1 * noise[:, 5:], -room, room)
    return np.asarray((placed - ((low + high) / 2)[:, None, None]) * shrink[:, None, None] + centre[:, None, None])
