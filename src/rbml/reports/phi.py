"""The learned values of the strategy, as a table and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rbml.data.extras import require
from rbml.reports import style
from rbml.reports.learned import LearnedNumber, quantities
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
        name: its name, such as ``"sgd.lr"``.
        layer: the layer, or the tensor if there is one value per tensor.
        granularity: ``"element"``, ``"layer, each step"`` and so on; ``"all, fixed"`` if it is not learned.
        values: how many values it has in this layer.
        start: their summary at the start.
        learned: their summary now.
        unit: their unit, if it is known.
    """

    name: str
    layer: str
    granularity: str
    values: int
    start: Summary
    learned: Summary
    unit: str


@dataclass(frozen=True)
class TensorRow:
    """One learned tensor of the strategy, such as a preconditioner's factor or a layer of a small network.

    Attributes:
        name: ``"kronecker.matrices"``.
        tensor: the name of the tensor.
        shape: its shape.
        start: its norm at the start.
        learned: its norm now.
        moved: the norm of the difference.
        identity: for a square matrix, its distance from the identity at the start and now: the norm of the difference.
    """

    name: str
    tensor: str
    shape: tuple[int, ...]
    start: float
    learned: float
    moved: float
    identity: tuple[float, float] | None


def phi_table(run: RunFolder) -> list[PhiRow]:
    """Return one row per learned number of the strategy and layer; none if no number of phi is learned.

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    return phi_rows(quantities(run))


def tensor_table(run: RunFolder) -> list[TensorRow]:
    """Return one row per learned tensor of the strategy; none if no part has any.

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    return tensor_rows(quantities(run))


def phi_rows(found: Sequence[LearnedNumber]) -> list[PhiRow]:
    """Return one row per number and layer."""
    rows = []
    for quantity in found:
        for layer, pair in quantity.layers.items() if quantity.hyper else ():
            start, learned = Summary.of(pair.start), Summary.of(pair.learned)
            fine = quantity.granularity if quantity.learned else f"{quantity.granularity}, fixed"
            rows.append(PhiRow(quantity.name, layer, fine, pair.learned.numel(), start, learned, quantity.unit))
    return rows


def tensor_rows(found: Sequence[LearnedNumber]) -> list[TensorRow]:
    """Return one row per tensor."""
    rows = []
    for quantity in found:
        for name, pair in () if quantity.hyper else quantity.layers.items():
            start, now = (leaf.detach().double() for leaf in pair)
            square = now.dim() == 2 and now.shape[0] == now.shape[1]
            eye = torch.eye(len(now), dtype=now.dtype) if square else now
            far = (float((start - eye).norm()), float((now - eye).norm())) if square else None
            sizes = float(start.norm()), float(now.norm()), float((now - start).norm())
            rows.append(TensorRow(quantity.name, name, tuple(now.shape), *sizes, far))
    return rows


def phi_figure(run: RunFolder, narrow: bool = False) -> Figure | None:
    """Draw phi at its start and now, one panel per learned number of the strategy.

    Values per element are drawn as their distribution in every layer, values per step by step, and others as one dot
    per layer; tensors as their norms, and how far they moved.

    Args:
        run: the run.
        narrow: whether to draw for a telephone.

    Returns:
        The figure, or ``None`` if nothing of phi is learned (MAML).

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    found = quantities(run)
    if not found:
        return None
    plans = [panel(quantity) for quantity in found]
    heights = [height for _, height in plans]
    width = style.NARROW if narrow else 6.6
    figure = style.new_figure(
        width, sum(heights) + 0.8 + 0.2 * narrow, "The learning strategy: where it started and what was learned"
    )
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
