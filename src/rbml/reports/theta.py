"""How far the initialisation moved: every run learns it, whatever its strategy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rbml.reports import style
from rbml.reports.learned import moves
from rbml.training import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def theta_figure(run: RunFolder, narrow: bool = False) -> Figure:
    """Draw the change of theta0 in every layer, relative to the norm of its initial weights.

    Args:
        run: the run.
        narrow: whether to draw for a telephone.

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    moved = moves(run)
    finite = [value if math.isfinite(value) else 0.0 for value in moved.values()]
    figure = style.new_figure(
        style.NARROW if narrow else 6.0, 1.5 + 0.25 * len(moved), "How far the initialisation moved"
    )
    axes = figure.subplots()
    rows = range(len(moved))
    axes.hlines(rows, 0, finite, color=style.FAINT, linewidth=2)
    axes.scatter(finite, rows, s=42, color=style.LEARNED, zorder=3, clip_on=False)
    for row, value in enumerate(moved.values()):
        text = (
            (f"{100 * value:.1f} %" if value > 0.01 else f"{100 * value:.2g} %")
            if math.isfinite(value)
            else "from zero"
        )
        axes.annotate(text, (finite[row], row), (8, 0), textcoords="offset points", va="center", fontsize=style.SMALL,
                      color=style.INK)  # fmt: skip
    axes.set_yticks(rows, list(moved))
    axes.set_ylim(len(moved) - 0.4, -0.6)
    axes.set_xlim(0, max([*finite, 1e-9]) * (1.3 if narrow else 1.18))
    axes.xaxis.set_major_formatter(lambda value, place: f"{100 * value:g} %")
    style.dress(axes, x="‖θ₀ \u2212 start‖ / ‖start‖", grid="x")
    return figure
