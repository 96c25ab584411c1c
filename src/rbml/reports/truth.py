"""A figure of one task of real values: predictions against true values, and a list of some queries with both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rbml.data.batch import Batch
from rbml.data.inputs import Shown
from rbml.data.targets import Metric
from rbml.reports import cells, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUERIES = 8
"""How many queries are listed at most."""


def truth_figure(
    support: Batch,
    query: Batch,
    shown: Shown,
    records: Sequence[dict[str, Any]],
    scored: tuple[Metric, float],
    narrow: bool = False,
) -> Figure:
    """Draw the predicted value of every query against its true one, one panel per target (at most three).

    Queries on the line are predicted perfectly. Intervals are drawn if the model predicts them; the grey band is the
    range of the support targets. Some queries are listed below.

    Args:
        support: the support batch of the task, targets ``(n, d)``.
        query: the query batch of the task, targets ``(n, d)``.
        shown: the queries, as their modality shows them.
        records: the predictions, as the target decodes them.
        scored: the metric that is shown, and its value on these queries.
        narrow: whether to draw for a telephone: panels below one another.
    """
    d = query.y.shape[1]
    panels = min(d, 3)
    listed = min(len(records), QUERIES)
    metric, value = scored
    across, down = (1, panels) if narrow else (panels, 1)
    wide, tall = style.NARROW if narrow else max(4.4, 3.4 * panels), 0.6 + 3.2 * down + 0.2 * (listed + 2)
    score = f"{metric.name} {metric.shown(value)} over {len(records)} queries, each predicted by itself"
    figure = style.new_figure(wide, tall, f"One task: {len(support.y)} support examples", score)
    grid = figure.add_gridspec(down + 1, across, height_ratios=[*[3.2] * down, 0.2 * (listed + 2)])
    for place in range(panels):
        axes = figure.add_subplot(grid[place // across, place % across])
        _panel(axes, support.y[:, place], query.y[:, place], _columns(records, place, d))
        title = _names(records, d)[place].removesuffix(" value") if d > 1 else ""
        style.dress(axes, title, "true value", "predicted value" if place % across == 0 else "")
    style.legend(figure, axes.get_legend_handles_labels()[0], columns=1 if narrow else 4)
    _list(figure.add_subplot(grid[down, :]), query.y, shown, records, listed, wide)
    return figure


def _names(records: Sequence[dict[str, Any]], d: int) -> list[str]:
    return [key for key in records[0] if key == "value" or key.endswith(" value")][:d]


def _columns(records: Sequence[dict[str, Any]], place: int, d: int) -> dict[str, Tensor]:
    """Return the values of one target over all queries, with ``low`` and ``high`` if there are any."""
    name = _names(records, d)[place]
    keys = {kind: name.removesuffix("value") + kind for kind in ("value", "low", "high")}
    return {kind: torch.tensor([record[key] for record in records]) for kind, key in keys.items() if key in records[0]}


def _panel(axes: Axes, support: Tensor, truth: Tensor, found: dict[str, Tensor]) -> None:
    every = torch.cat([truth, *found.values()])
    low, high = every.min().item(), every.max().item()
    room = 0.06 * ((high - low) or 1.0)
    ends = [low - room, high + room]
    axes.axvspan(support.min().item(), support.max().item(), color=style.GRID, zorder=0, label="support targets")
    axes.plot(ends, ends, color=style.MUTED, linewidth=1, linestyle=(0, (1, 2)), label="prediction = true value")
    if "low" in found:
        axes.vlines(truth, found["low"], found["high"], color=style.BLUE, alpha=0.35, linewidth=1.4)
    axes.plot(truth, found["value"], "o", color=style.BLUE, markersize=4, markeredgecolor="white", markeredgewidth=0.5)
    axes.set(xlim=ends, ylim=ends)


def _list(axes: Axes, truth: Tensor, shown: Shown, records: Sequence[dict[str, Any]], listed: int, wide: float) -> None:
    axes.set(xlim=(0, 1), ylim=(listed + 1, 0))
    axes.axis("off")
    rows = [("query", "true", "predicted")]
    for place in range(listed):
        example = (
            f"query {place + 1}"
            if shown.kind == "picture"
            else cells.in_line(shown.kind, shown.values[place], int(9.5 * wide))
        )
        predicted = ", ".join(f"{value:.4g}" for key, value in records[place].items() if key.endswith("value"))
        rows.append((example, ", ".join(f"{value:.4g}" for value in truth[place].tolist()), predicted))
    for row, texts in enumerate(rows):
        colour = style.INK if row else style.MUTED
        for x, text, side in zip((0.0, 0.82, 1.0), texts, ("left", "right", "right"), strict=True):
            axes.text(x, row + 0.5, text, ha=side, va="center", fontsize=style.SMALL, color=colour)
