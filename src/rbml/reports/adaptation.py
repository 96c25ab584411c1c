"""How fast a learner adapts: its metric after each inner step, on every source of tasks on which it was evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rbml.errors import UsageError
from rbml.reports import style
from rbml.reports.evaluations import labels, shown_metric
from rbml.training import Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
LOOKS = {"transductive": (style.BLUE, "o"), "inductive": (style.RED, "s"), "running": (style.GREEN, "^")}
"""Colour and marker for each choice of batch-norm statistics."""


def metric_by_step(evaluations: Mapping[str, Any], narrow: bool = False) -> Figure:
    """Draw the metric before and after each inner step, with 95 % intervals over tasks; one panel per evaluation.

    Args:
        evaluations: by name, the content of ``RUN/evaluations/NAME.json``; the first metric of each is drawn.
        narrow: whether to draw for a telephone: all panels below one another.

    Raises:
        UsageError: if there are none.
    """
    if not evaluations:
        raise UsageError("there is no evaluation to draw: make one with rbml evaluate RUN")
    columns = 1 if narrow else min(COLUMNS, len(evaluations))
    rows = -(-len(evaluations) // columns)
    subtitle = "with 95 % intervals over tasks; the numbers are those after the last step"
    names = [shown_metric(one)["name"] for one in evaluations.values()]
    what = names[0] if len(set(names)) == 1 else "metrics"
    title = f"{what[:1].upper()}{what[1:]} after each inner step"
    width = style.NARROW if narrow else max(4.4, 0.7 + 2.55 * columns)
    figure = style.new_figure(width, 1.4 + 2.5 * rows, title, subtitle)
    panels = figure.subplots(rows, columns, sharey=len(set(names)) == 1, squeeze=False)
    handles: dict[str, Any] = {}
    told = labels(evaluations)
    for index, (axes, name, evaluation) in enumerate(zip(panels.flat, evaluations, evaluations.values(), strict=False)):
        metric = shown_metric(evaluation)
        handles |= _panel(axes, evaluation, metric)
        labelled = index % columns == 0 or len(set(names)) > 1
        style.dress(axes, x="inner steps", y=style.axis_label(metric["name"], metric["unit"]) if labelled else "")
        title, under = told[name]
        axes.set_title(title, loc="left", fontsize=style.LABEL, color=style.INK, fontweight="bold", pad=29)
        axes.annotate(under, (0, 1), (0, 18), "axes fraction", "offset points", fontsize=style.SMALL, color=style.MUTED)
        style.in_unit(axes, metric["unit"])
    for axes in panels.flat[len(evaluations) :]:
        axes.set_visible(False)
    style.legend(figure, handles.values(), columns=2 if narrow else 4)
    return figure


def _panel(axes: Axes, evaluation: Mapping[str, Any], metric: Mapping[str, str]) -> dict[str, Any]:
    """Draw one evaluation; return what the legend shows."""
    handles: dict[str, Any] = {}
    steps = 0
    for which, scores in evaluation[metric["name"]].items():
        colour, marker = LOOKS.get(which, (style.PURPLE, "D"))
        means = np.array([score["mean"] for score in scores], dtype=np.float64)
        half = np.array([score["interval"] for score in scores], dtype=np.float64)
        x = np.arange(len(means))
        axes.fill_between(x, means - half, means + half, color=colour, alpha=0.15, linewidth=0)
        bars = axes.errorbar(
            x, means, half, color=colour, marker=marker, markersize=4, linewidth=1.5, elinewidth=1.1, capsize=2.5,
            label=which,
        )  # fmt: skip
        handles[which] = bars
        final = f"{Score(**scores[-1]).shown(metric['unit'])} {metric['unit']}".rstrip()
        place = (72 * (len(handles) - 1), 6)
        axes.annotate(final, (0, 1), place, "axes fraction", "offset points", fontsize=style.SMALL, color=colour,
                      fontweight="bold")  # fmt: skip
        steps = max(steps, len(means) - 1)
    if "ways" in evaluation:
        look: dict[str, Any] = {"color": style.MUTED, "linewidth": 1, "linestyle": (0, (1, 2)), "label": "chance"}
        handles["chance"] = axes.axhline(1 / evaluation["ways"], **look)
    axes.set_xlim(-0.12 * max(steps, 1), max(steps, 1) * 1.12)
    if metric["unit"] == "%":
        axes.set_ylim(0, 1.04)
    style.whole_numbers(axes.xaxis)
    return handles
