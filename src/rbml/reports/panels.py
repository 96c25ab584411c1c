"""The panels of the figure of phi, one per learned number, drawn according to its granularity."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rbml.reports import style
from rbml.reports.learned import LearnedNumber

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
Panel = Callable[["Axes", LearnedNumber, str], None]

_READABLE = 12
"""The largest number of inner steps for which the cells have room for their values."""


def panel(quantity: LearnedNumber) -> tuple[Panel, float]:
    """Return the function that draws a quantity, and the height of its panel in inches."""
    rows = len(quantity.layers)
    if quantity.hyper is None:
        return _norms, 0.95 + 0.27 * rows
    steps = len(next(iter(quantity.layers.values())).learned)
    if steps > 1 and rows == 1 and quantity.granularity != "element, each step":
        return _by_step, 2.3
    if steps > 1:
        return heat_map, 0.95 + 0.27 * rows
    if quantity.granularity == "element":
        return _ridges, 0.95 + 0.42 * rows
    return _dots, 0.95 + 0.27 * rows


def _ridges(axes: Axes, quantity: LearnedNumber, label: str) -> None:
    """Draw the density of the values of each layer with its median, all on the same axis."""
    for row, pair in enumerate(quantity.layers.values()):
        curves = [density(values) for values in pair]
        top = 0.8 / max(heights.max() for _, heights in curves)
        for (centres, heights), values, colour in zip(curves, pair, (style.START, style.LEARNED), strict=True):
            edge = row - top * heights
            axes.fill_between(centres, row, edge, color=colour, alpha=0.4, linewidth=0)
            axes.plot(centres, edge, color=colour, linewidth=1.1)
            middle = values.median().item()
            axes.plot(
                [middle, middle],
                [row, row - (0.8 if len(centres) == 3 else 0.3)],
                color=colour,
                linewidth=2,
                solid_capstyle="butt",
            )
    low, high = axes.get_xlim()
    if low < 0 < high:
        axes.axvline(0, color=style.MUTED, linewidth=0.8, zorder=0.5)
    _layers(axes, quantity)
    axes.set_ylim(len(quantity.layers) - 0.75, -1.0)
    style.dress(axes, f"{quantity.name} by layer: density over its elements, and median", label, grid="x")


def density(values: Tensor) -> tuple[Floats, Floats]:
    """Return a smoothed density between the lowest and the highest value, with an area of one.

    The bandwidth is Silverman's; the density is reflected at both ends. A single value gives a narrow peak.

    Returns:
        Ascending positions, and the density there; it begins and ends at 0.
    """
    flat = values.double().flatten().numpy()
    low, high = flat.min(), flat.max()
    if low == high:
        return np.full(3, low), np.array([0.0, np.finfo(float).tiny, 0.0])
    counts, edges = np.histogram(flat, 200)
    width = edges[1] - edges[0]
    sigma = max(0.9 * flat.std() * len(flat) ** -0.2 / width, 1.0)
    reach = min(int(4 * sigma) + 1, len(counts))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    heights = np.convolve(np.pad(counts, reach, "symmetric"), kernel / kernel.sum(), "valid") / (len(flat) * width)
    centres = (edges[1:] + edges[:-1]) / 2
    return np.concatenate([[low], centres, [high]]), np.concatenate([[0.0], heights, [0.0]])


def _dots(axes: Axes, quantity: LearnedNumber, label: str) -> None:
    """Draw one dot for the start of a value, one for its current value, and a line between them."""
    starts = [pair.start.item() for pair in quantity.layers.values()]
    ends = [pair.learned.item() for pair in quantity.layers.values()]
    rows = range(len(ends))
    axes.hlines(rows, starts, ends, color=style.FAINT, linewidth=2)
    axes.scatter(starts, rows, s=30, color=style.START, zorder=3)
    axes.scatter(ends, rows, s=42, color=style.LEARNED, zorder=4)
    for row, end in enumerate(ends):
        text = f"{end:.3g}".replace("-", "\u2212")
        axes.annotate(text, (1, row), (4, 0), ("axes fraction", "data"), "offset points", va="center",
                      fontsize=style.SMALL, color=style.LEARNED, annotation_clip=False)  # fmt: skip
    _layers(axes, quantity)
    axes.set_ylim(len(ends) - 0.4, -0.6)
    if min(*starts, *ends) > 0 and max(*starts, *ends) > 30 * min(*starts, *ends):
        axes.set_xscale("log")
    axes.margins(x=0.08)
    style.dress(axes, _title(quantity), label)


def _norms(axes: Axes, quantity: LearnedNumber, label: str) -> None:
    """Draw the norm of every tensor at its start and now, and write how far it moved."""
    starts = [pair.start.norm().item() for pair in quantity.layers.values()]
    ends = [pair.learned.norm().item() for pair in quantity.layers.values()]
    moved = [(pair.learned - pair.start).norm().item() for pair in quantity.layers.values()]
    rows = range(len(ends))
    axes.hlines(rows, starts, ends, color=style.FAINT, linewidth=2)
    axes.scatter(starts, rows, s=30, color=style.START, zorder=3)
    axes.scatter(ends, rows, s=42, color=style.LEARNED, zorder=4)
    for row, (start, way) in enumerate(zip(starts, moved, strict=True)):
        text = f"moved {way:.2g}" + (f" ({100 * way / start:.2g} %)" if start else " from zero")
        axes.annotate(text, (1, row), (4, 0), ("axes fraction", "data"), "offset points", va="center",
                      fontsize=style.SMALL, color=style.LEARNED, annotation_clip=False)  # fmt: skip
    _layers(axes, quantity)
    axes.set_ylim(len(ends) - 0.4, -0.6)
    axes.margins(x=0.08)
    style.dress(axes, f"{quantity.name}: norm of each tensor, and how far it moved", "norm", grid="x")


def _by_step(axes: Axes, quantity: LearnedNumber, label: str) -> None:
    """Draw one value per inner step as a line."""
    (pair,) = quantity.layers.values()
    steps = range(1, len(pair.learned) + 1)
    axes.plot(steps, pair.start.flatten(), color=style.START, linewidth=2)
    axes.plot(steps, pair.learned.flatten(), "o-", color=style.LEARNED, linewidth=1.7, markersize=4)
    style.whole_numbers(axes.xaxis)
    style.dress(axes, f"{quantity.name} by inner step", "inner step", quantity.unit or quantity.name)


def heat_map(axes: Axes, quantity: LearnedNumber, label: str) -> None:
    """Draw the start and every inner step of every layer as a coloured cell; for values per element, their mean."""
    pairs = quantity.layers.values()
    start = np.array([[pair.start.mean().item()] for pair in pairs])
    learned = np.array([pair.learned.mean(1).tolist() for pair in pairs])
    rows, steps = learned.shape
    low, high = min(start.min(), learned.min()), max(start.max(), learned.max())
    signed = low < 0 < high
    if signed:
        low, high = -max(-low, high), max(-low, high)
    gap = 0.04 * steps
    for cells, left in ((start, -0.5 - gap), (learned, 0.5)):
        edges = left + np.arange(cells.shape[1] + 1)
        colours = axes.pcolormesh(
            edges, np.arange(rows + 1) - 0.5, cells, cmap="RdBu_r" if signed else "Blues", vmin=low, vmax=high
        )
        if steps > _READABLE:
            continue
        for (row, column), value in np.ndenumerate(cells):
            share = (value - low) / ((high - low) or 1)
            colour = "white" if abs(share - 0.5) > 0.3 and (signed or share > 0.5) else style.INK
            text = f"{value:.2g}".replace("-", "\u2212")
            axes.text(left + column + 0.5, row, text, ha="center", va="center", fontsize=style.SMALL, color=colour)
    shown = range(1, steps + 1, -(-steps // _READABLE))
    axes.set_xticks([-gap, *shown], ["start", *map(str, shown)])
    _layers(axes, quantity)
    axes.invert_yaxis()
    mean = ", mean over the elements of each layer" if quantity.granularity.startswith("element") else ""
    style.dress(axes, f"{label}{mean}", "inner step", grid="")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if steps > _READABLE:
        bar = axes.figure.colorbar(colours, ax=axes, pad=0.015, fraction=0.04)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=style.SMALL, color=style.FAINT, labelcolor=style.INK)


def _title(quantity: LearnedNumber) -> str:
    fine = quantity.granularity
    return quantity.name if fine == "all" else f"{quantity.name} by {fine}"


def _layers(axes: Axes, quantity: LearnedNumber) -> None:
    axes.set_yticks(range(len(quantity.layers)), list(quantity.layers))
