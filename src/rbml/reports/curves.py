"""How training went: the metric, loss, meta-gradient and outer learning rate by outer step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rbml.data.targets import Metric
from rbml.errors import CheckpointError
from rbml.reports import style
from rbml.reports.facts import Facts, facts
from rbml.training import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]


def journal(run: RunFolder) -> list[dict[str, Any]]:
    """Return the entries of the run's journal, one per outer step.

    Raises:
        CheckpointError: if there are none yet, or they cannot be read.
    """
    try:
        entries = list(run.lines())
    except ValueError as error:
        raise CheckpointError(f"{run.journal} is damaged: {error}") from error
    if not entries:
        raise CheckpointError(f"{run.path} has no journal yet: go on with rbml train --resume {run.path}")
    return entries


def best_validation(entries: list[dict[str, Any]], metric: Metric) -> dict[str, Any] | None:
    """Return the entry of the best validation, the first of equal ones; ``None`` before the first validation."""
    best: dict[str, Any] | None = None
    for entry in entries:
        so_far = None if best is None else best["validation"]
        if "validation" in entry and metric.improves(entry["validation"], so_far):
            best = entry
    return best


def smooth(values: Floats, window: int) -> Floats:
    """Return the centred moving mean; near the ends the window is cut off.

    >>> smooth(np.array([0.0, 3.0, 6.0]), 3).tolist()
    [1.5, 3.0, 4.5]
    """
    kernel = np.ones(min(window, len(values)))
    total: Floats = np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")
    return total


def learning_curve(run: RunFolder, narrow: bool = False) -> Figure:
    """Draw how training went, by outer step and by tasks seen; the run need not be finished.

    Args:
        run: the run.
        narrow: whether to draw for a telephone: all panels below one another.

    Raises:
        CheckpointError: if the run has no journal yet.
    """
    entries, about = journal(run), facts(run)
    last = entries[-1]["step"]
    setting = f"{about.algorithm} on {about.source}, {about.tasks.partition(',')[0]}"
    if last < about.meta_steps:
        setting += f"; up to step {style.count(last)} of {style.count(about.meta_steps)}"
    if narrow:
        figure = style.new_figure(style.NARROW, 8.6, "Learning curve", setting)
        top, middle, left, right = figure.subplots(4, 1, height_ratios=[3.0, 1.8, 1.3, 1.3])
    else:
        figure = style.new_figure(7.2, 6.4, "Learning curve", setting)
        grid = figure.add_gridspec(3, 2, height_ratios=[3.0, 1.8, 1.3])
        top, middle = figure.add_subplot(grid[0, :]), figure.add_subplot(grid[1, :])
        left, right = figure.add_subplot(grid[2, 0]), figure.add_subplot(grid[2, 1])

    steps = column(entries, "step")
    window = max(3, len(entries) // 20)
    _metric(top, entries, window, about.metric, about.chance)
    _faint_and_smooth(middle, steps, column(entries, "loss"), window)
    style.dress(middle, "Loss", y=loss_label(about))
    left.plot(steps, column(entries, "grad_norm"), color=style.MUTED, linewidth=0.9, label="gradient norm")
    if about.clip:
        look: dict[str, Any] = {"color": style.RED, "linewidth": 1, "linestyle": (0, (2, 2))}
        left.axhline(about.clip, label=f"clipped at {about.clip:g}", **look)
    left.set_yscale("log")
    style.dress(left, "Meta-gradient", "outer steps", "norm")
    right.plot(steps, column(entries, "outer_lr"), color=style.MUTED, linewidth=1.4, label="outer learning rate")
    style.dress(right, "Outer learning rate", "outer steps", "rate")
    right.yaxis.set_major_formatter(lambda value, place: f"{value:g}")
    right.set_ylim(bottom=0)

    for axes in (top, middle, left, right):
        axes.set_xlim(0, max(last, 1) * 1.012)
        style.whole_numbers(axes.xaxis)
    top.tick_params(labelbottom=False)
    middle.set_xlabel("outer steps", fontsize=style.LABEL, color=style.INK)
    per_step = float(about.tasks_per_step)
    scale: Any = (lambda step: step * per_step, lambda task: task / per_step)
    seen = top.secondary_xaxis("top", functions=scale)
    seen.set_xlabel("training tasks seen", fontsize=style.LABEL, color=style.INK)
    seen.tick_params(labelsize=style.SMALL, labelcolor=style.INK, color=style.FAINT, length=3)
    seen.spines["top"].set_color(style.FAINT)
    style.whole_numbers(seen.xaxis)
    style.legend(figure, [*top.get_legend_handles_labels()[0], *left.lines[1:]], columns=1 if narrow else 3)
    return figure


def column(entries: list[dict[str, Any]], name: str) -> Floats:
    """Return one number from every entry."""
    return np.array([entry[name] for entry in entries], dtype=np.float64)


def loss_label(about: Facts) -> str:
    """Return the label of an axis of losses; the losses of classes are in nats."""
    return "query loss (nats)" if about.setting.target.kind == "classes" else "query loss"


def _metric(axes: Axes, entries: list[dict[str, Any]], window: int, metric: Metric, chance: float | None) -> None:
    _faint_and_smooth(axes, column(entries, "step"), column(entries, metric.name), window)
    measured = [entry for entry in entries if "validation" in entry]
    if best := best_validation(entries, metric):
        x, y = column(measured, "step"), column(measured, "validation")
        if all("validation_seen" in entry for entry in measured):
            gap = column(measured, "validation_seen")
            label = "new tasks of the training part"
            axes.plot(x, gap, "s-", color=style.GREEN, linewidth=1, markersize=3.5, label=label, clip_on=False)
            axes.fill_between(x, y, gap, color=style.GREEN, alpha=0.12, linewidth=0)
        axes.plot(x, y, "o-", color=style.RED, linewidth=1, markersize=4, label="validation tasks", clip_on=False)
        shown = metric.shown(best["validation"]).replace("%", " %")
        label = f"best: {shown} at step {style.count(best['step'])}"
        axes.plot(
            best["step"], best["validation"], "*", color=style.RED, markersize=12, markeredgecolor="white",
            markeredgewidth=0.8, label=label, clip_on=False, linestyle="none", zorder=5,
        )  # fmt: skip
    if chance is not None:
        label = f"chance: {100 * chance:.3g} %"
        axes.axhline(chance, color=style.MUTED, linewidth=1, linestyle=(0, (1, 2)), label=label)
    style.dress(axes, y=style.axis_label(metric.name, metric.unit))
    style.in_unit(axes, metric.unit)


def _faint_and_smooth(axes: Axes, steps: Floats, values: Floats, window: int) -> None:
    axes.plot(steps, values, color=style.BLUE, alpha=0.22, linewidth=0.8, label="training tasks")
    label = f"training, mean of {window} steps"
    axes.plot(steps, smooth(values, window), color=style.BLUE, linewidth=1.7, label=label)
