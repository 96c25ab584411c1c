"""What of the learning strategy was learned, as a table and as a figure, in real values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from rbml.data.extras import require
from rbml.reports import style
from rbml.reports.learned import quantities
from rbml.reports.panels import heat_map, panel
from rbml.training import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Summary:
    """Mean, extremes and (population) standard deviation of some values, and the share of them below zero."""

    mean: float
    min: float
    max: float
    std: float
    negative: float

    @staticmethod
    def of(values: Tensor) -> Summary:
        """Return the summary over all values."""
        wide = values.double()
        found = (wide.mean(), wide.min(), wide.max(), wide.std(unbiased=False), (wide < 0).double().mean())
        return Summary(*(value.item() for value in found))


@dataclass(frozen=True)
class PhiRow:
    """One learned number of the strategy in one layer.

    Attributes:
        name: ``"sgd.lr"``.
        layer: the layer, or the tensor where there is one value a tensor.
        granularity: ``"element"``, ``"layer, each step"`` and so on.
        values: how many it has there.
        start: where they started.
        learned: where they are.
        unit: theirs, where it is known.
    """

    name: str
    layer: str
    granularity: str
    values: int
    start: Summary
    learned: Summary
    unit: str


def phi_table(run: RunFolder) -> list[PhiRow]:
    """Return a row for every learned number of the strategy and every layer; none where nothing of phi is learned.

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    rows = []
    for quantity in quantities(run):
        hyper = quantity.hyper
        fine = f"{hyper.per}, each step" if hyper.per_step else hyper.per
        for layer, pair in quantity.layers.items():
            start, learned = Summary.of(pair.start), Summary.of(pair.learned)
            rows.append(PhiRow(quantity.name, layer, fine, pair.learned.numel(), start, learned, quantity.unit))
    return rows


def phi_figure(run: RunFolder) -> Figure | None:
    """Draw where phi started and where it went, a panel for every learned number of the strategy.

    One value an element: its distribution in every layer. One value a step: by step. Else a dot a layer.

    Returns:
        The figure, or ``None`` where nothing of phi is learned (MAML).

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    found = quantities(run)
    if not found:
        return None
    plans = [panel(quantity) for quantity in found]
    heights = [height for _, height in plans]
    figure = style.new_figure(6.6, sum(heights) + 0.8, "The learning strategy: where it started and what was learned")
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, quantity, (draw, _) in zip(panels, found, plans, strict=True):
        unit = f" ({quantity.unit})" if quantity.unit else ""
        draw(axes, quantity, f"{quantity.name}{unit}")
    if all(draw is heat_map for draw, _ in plans):
        return figure
    lines = require("matplotlib.lines", "report", "drawing a report")
    keys = ((style.START, "start"), (style.LEARNED, "learned"))
    style.legend(figure, [lines.Line2D([], [], color=colour, linewidth=5, label=label) for colour, label in keys])
    return figure
