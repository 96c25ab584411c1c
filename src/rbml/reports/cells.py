"""One example as a cell of a figure: a picture, or the text of a sentence or of a row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from rbml.data.extras import require
from rbml.data.inputs import Shown
from rbml.reports import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES, _LETTERS = 5, 17
"""How much text a cell can hold."""


@dataclass(frozen=True)
class Look:
    """How the values of pictures become colours; the same for a whole task.

    Attributes:
        low: the darkest value.
        high: the brightest value.
        colours: the name of matplotlib's colour map for grey pictures.
    """

    low: float = 0.0
    high: float = 1.0
    colours: str = "gray"

    @staticmethod
    def of(parts: Sequence[Shown]) -> Look:
        """Return the look of a task's examples: grey drawings on a dark background are shown dark on white."""
        if parts[0].kind != "picture":
            return Look()
        values = np.concatenate([np.asarray(one).ravel() for part in parts for one in part.values])
        low, high = min(0.0, float(values.min())), max(1.0, float(values.max()))
        grey = np.asarray(parts[0].values[0]).ndim == 2
        # torch.median takes the lower of two middle values, which is a value of the picture itself.
        middle = float(np.sort(values)[(len(values) - 1) // 2])
        return Look(low, high, "gray_r" if grey and middle < low + 0.25 * (high - low) else "gray")


def draw(axes: Axes, kind: str, value: Any, left: float, top: float, colour: str, width: float, look: Look) -> None:
    """Draw one example into the unit square whose upper left corner is given, in a frame.

    Args:
        axes: where, with an inverted y axis.
        kind: ``"picture"``, ``"text"`` or ``"table"``, as of :class:`rbml.data.inputs.Shown`.
        value: the example.
        left: the left edge of the cell.
        top: the top edge of the cell.
        colour: the colour of the frame.
        width: the width of the frame's line, in points.
        look: how pictures are coloured.
    """
    patches = require("matplotlib.patches", "report", "drawing a report")
    tall, wide = np.asarray(value).shape[:2] if kind == "picture" else (1, 1)
    half = (0.45 * wide / max(tall, wide), 0.45 * tall / max(tall, wide))
    box = (left + 0.5 - half[0], left + 0.5 + half[0], top + 0.5 + half[1], top + 0.5 - half[1])
    if kind == "picture":
        pixels = (np.asarray(value) - look.low) / (look.high - look.low)
        axes.imshow(pixels, extent=box, cmap=look.colours, vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    else:
        text = in_lines(kind, value)
        axes.text(left + 0.1, top + 0.5, text, ha="left", va="center", fontsize=5.6, color=style.INK, linespacing=1.1)
    frame = patches.Rectangle((box[0], box[3]), 2 * half[0], 2 * half[1], fill=False, edgecolor=colour, linewidth=width)
    axes.add_patch(frame)


def in_lines(kind: str, value: Any) -> str:
    """Return an example that is not a picture as a few short lines.

    >>> print(in_lines("table", {"age": 60.0, "dose": 1.25}))
    age 60
    dose 1.25
    """
    lines = _entries(value) if kind == "table" else wrap(str(value), _LETTERS)
    lines = lines if len(lines) <= _LINES else [*lines[: _LINES - 1], "…"]
    return "\n".join(line if len(line) <= _LETTERS else f"{line[: _LETTERS - 1]}…" for line in lines)


def in_line(kind: str, value: Any, letters: int = 60) -> str:
    """Return an example that is not a picture as one line.

    >>> in_line("table", {"age": 60.0, "dose": 1.25})
    'age 60, dose 1.25'
    """
    text = ", ".join(_entries(value)) if kind == "table" else str(value)
    return shorten(text, letters, placeholder=" …")


def _entries(row: Mapping[str, float]) -> list[str]:
    return [f"{name} {number:.4g}" for name, number in row.items()]
