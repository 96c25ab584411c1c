"""Two runs side by side: how their recipes differ, their learning curves, and the strategies that they learned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rbml.data.extras import require
from rbml.errors import UsageError
from rbml.reports import style
from rbml.reports.curves import best_validation, column, journal, loss_label, smooth
from rbml.reports.evaluations import evaluations, shown_metric
from rbml.reports.facts import entries, facts
from rbml.reports.learned import LearnedNumber, Pair, quantities
from rbml.reports.phi import Summary
from rbml.reports.text import duration, table
from rbml.reports.wording import spread
from rbml.training import RunFolder, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (style.BLUE, style.RED)


def names(run: RunFolder, other: RunFolder) -> tuple[str, str]:
    """Return names for the two runs: those of their folders, or their whole paths if these are the same."""
    paths = [one.path.resolve() for one in (run, other)]
    first, second = (path.name for path in paths)
    return (first, second) if first != second else (str(paths[0]), str(paths[1]))


def differences(run: RunFolder, other: RunFolder) -> str:
    """Return a table of the recipe entries that differ, and of the results of the two runs.

    Raises:
        CheckpointError: if a folder is not a run folder, or a run has no journal yet.
    """
    recipes = [entries(one) for one in (run, other)]
    results = [recipe | _results(one) for recipe, one in zip(recipes, (run, other), strict=True)]
    keys = list(dict.fromkeys(key for result in results for key in result))
    told = [key for key in keys if key not in {*recipes[0], *recipes[1]} or recipes[0].get(key) != recipes[1].get(key)]
    return table(["", *names(run, other)], [[key, *(result.get(key, "") for result in results)] for key in told])


def _results(run: RunFolder) -> dict[str, str]:
    """Return how many steps a run has taken, and its scores."""
    steps, metric = journal(run), facts(run).metric
    best = best_validation(steps, metric)
    found = {
        "outer steps taken": style.count(steps[-1]["step"]),
        "time": duration(sum(entry.get("seconds", 0.0) for entry in steps)),
        _with_unit("best validation", metric.unit): _number(best["validation"], metric.unit) if best else "",
    }
    for name, one in evaluations(run)[0].items():
        shown = shown_metric(one)
        for which, scores in one[shown["name"]].items():
            found[_with_unit(f"{name}, {which}", shown["unit"])] = Score(**scores[-1]).shown(shown["unit"])
    return found


def _with_unit(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f}" if unit == "%" else f"{value:.3g}"


def phi_beside(run: RunFolder, other: RunFolder) -> str:
    """Return a table of the learned numbers of both strategies, or a sentence if neither has any.

    Raises:
        CheckpointError: if a run has no checkpoint yet, or it is damaged.
    """
    found = _both(run, other)
    if not found:
        return "Neither run has learned any number of its strategy.\n"
    rows = [
        [f"`{name}`", layer, *(_cell(one, layer) for one in pair), next(one.unit for one in pair if one)]
        for name, pair in found.items()
        for layer in _layers(pair)
    ]
    head = ["number", "layer", *names(run, other), "unit"]
    return "Mean (lowest to highest) of the learned values; for tensors, their norm.\n\n" + table(head, rows)


def _both(run: RunFolder, other: RunFolder) -> dict[str, tuple[LearnedNumber | None, LearnedNumber | None]]:
    first, second = ({one.name: one for one in quantities(each)} for each in (run, other))
    return {name: (first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])}


def _layers(pair: tuple[LearnedNumber | None, LearnedNumber | None]) -> list[str]:
    """Return the layers of both, in the order of the run that has more of them."""
    longest_first = sorted((list(one.layers) for one in pair if one), key=len, reverse=True)
    return list(dict.fromkeys(layer for layers in longest_first for layer in layers))


def _cell(quantity: LearnedNumber | None, layer: str) -> str:
    if quantity is None or layer not in quantity.layers:
        return ""
    learned = quantity.layers[layer].learned
    return spread(Summary.of(learned)) if quantity.hyper else f"{learned.norm().item():.3g}"


def phi_compared(run: RunFolder, other: RunFolder, narrow: bool = False) -> Figure | None:
    """Draw the learned numbers of two strategies, one panel per number: by step, or one row per layer.

    Returns:
        The figure, or ``None`` if neither run has learned any.

    Raises:
        CheckpointError: if a run has no checkpoint yet, or it is damaged.
    """
    found = _both(run, other)
    if not found:
        return None
    layers = [_layers(pair) for pair in found.values()]
    heights = [
        2.3 if _steps(pair) else 0.95 + 0.3 * len(rows) for pair, rows in zip(found.values(), layers, strict=True)
    ]
    width = style.NARROW if narrow else 6.6
    figure = style.new_figure(width, sum(heights) + 0.8, "What two runs have learned of their strategies")
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, pair), rows in zip(panels, found.items(), layers, strict=True):
        unit = next(one.unit for one in pair if one)
        label = f"{name} ({unit})" if unit else name
        if _steps(pair):
            _by_step(axes, pair, label)
        else:
            _by_layer(axes, pair, rows, label)
    _legend(figure, names(run, other))
    return figure


def _steps(pair: tuple[LearnedNumber | None, LearnedNumber | None]) -> bool:
    """Return whether both have one value per step, or one for all steps: they are then drawn as lines by step."""
    there = [one for one in pair if one]
    one_row = all(one.hyper and len(one.layers) == 1 and one.hyper.per == "all" for one in there)
    return one_row and any(one.hyper and one.hyper.per_step for one in there)


def _by_step(axes: Axes, pair: tuple[LearnedNumber | None, LearnedNumber | None], label: str) -> None:
    longest = max(len(values.learned) for one in pair if one for values in one.layers.values())
    for quantity, colour in zip(pair, _COLOURS, strict=True):
        for values in quantity.layers.values() if quantity else ():
            learned = values.learned.flatten()
            learned = learned if len(learned) > 1 else learned.expand(longest)
            axes.plot(range(1, len(learned) + 1), learned, "o-", color=colour, linewidth=1.7, markersize=4)
    style.whole_numbers(axes.xaxis)
    style.dress(axes, label, "inner step", "")


def _by_layer(axes: Axes, pair: tuple[LearnedNumber | None, LearnedNumber | None], rows: list[str], label: str) -> None:
    for quantity, colour, shift in zip(pair, _COLOURS, (-0.15, 0.15), strict=True):
        for layer, values in quantity.layers.items() if quantity else ():
            row, (low, mean, high) = rows.index(layer) + shift, _range(quantity, values)
            axes.plot([low, high], [row, row], color=colour, alpha=0.4, linewidth=3, solid_capstyle="butt")
            axes.plot(mean, row, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.margins(x=0.08)
    tensors = not all(one.hyper for one in pair if one)
    style.dress(axes, label, "norm" if tensors else "mean, and lowest to highest", grid="x")


def _range(quantity: LearnedNumber | None, pair: Pair) -> tuple[float, float, float]:
    values = pair.learned if quantity is not None and quantity.hyper else pair.learned.norm()
    return values.min().item(), values.mean().item(), values.max().item()


def curves_compared(run: RunFolder, other: RunFolder, narrow: bool = False) -> Figure:
    """Draw the learning curves of two runs in one plot: the metric in training (smoothed) and validation, and the loss.

    Raises:
        CheckpointError: if a run has no journal yet.
        UsageError: if the runs have different metrics.
    """
    figure = style.new_figure(
        style.NARROW if narrow else 7.2,
        5.4,
        "Learning curves of two runs",
        "lines: training tasks, smoothed; dots: validation",
    )
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    metric, theirs = (facts(one).metric for one in (run, other))
    if metric.name != theirs.name:
        raise UsageError(f"one run measures {metric.name}, the other {theirs.name}: their curves cannot be compared")
    for one, colour in zip((run, other), _COLOURS, strict=True):
        lines = journal(one)
        steps, window = column(lines, "step"), max(3, len(lines) // 20)
        top.plot(steps, smooth(column(lines, metric.name), window), color=colour, linewidth=1.5)
        bottom.plot(steps, smooth(column(lines, "loss"), window), color=colour, linewidth=1.5)
        measured = [entry for entry in lines if "validation" in entry]
        if measured:
            dots = column(measured, "step"), column(measured, "validation")
            top.plot(*dots, "o", color=colour, markersize=4.5, markeredgecolor="white")
    style.dress(top, y=style.axis_label(metric.name, metric.unit))
    style.in_unit(top, metric.unit)
    style.dress(bottom, "Loss", "outer steps", loss_label(facts(run)))
    style.whole_numbers(bottom.xaxis)
    _legend(figure, names(run, other))
    return figure


def _legend(figure: Figure, labels: tuple[str, str]) -> None:
    lines = require("matplotlib.lines", "report", "drawing a report")
    shown = [label if len(label) <= 40 else f"…{Path(label).parent.name}/{Path(label).name}" for label in labels]
    pairs = zip(shown, _COLOURS, strict=True)
    handles = [lines.Line2D([], [], color=colour, linewidth=5, label=label) for label, colour in pairs]
    style.legend(figure, handles, columns=1 if figure.get_figwidth() <= style.NARROW else 2)
