"""How many examples a run on a table needs: its metric by the size of the support set, beside the baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rbml.reports import style
from rbml.reports.evaluations import shown_metric
from rbml.reports.text import table
from rbml.training import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (style.BLUE, style.MUTED, style.RED, style.GREEN, style.PURPLE)
_MARKERS = "osD^v"


def by_shots(evaluations: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first evaluation that was made by the number of support examples; ``None`` where there is none."""
    return next((one for one in evaluations.values() if one.get("by_shots")), None)


def shots_table(evaluation: Mapping[str, Any]) -> str:
    """Return a table with a row per size of the support set, and a column for the run and each baseline."""
    unit, found = shown_metric(evaluation)["unit"], evaluation["by_shots"]
    names = list(found[0]["scores"])
    rows = [[str(one["shots"]), *(Score(**one["scores"][name]).shown(unit) for name in names)] for one in found]
    first = Score(**found[0]["scores"][names[0]])
    over = f"the {first.groups} groups that the tasks come from" if first.groups else "tasks"
    head = f"{_metric(evaluation)} by the number of support examples, {first.tasks} tasks each, mean ± 95 % interval "
    return f"{head}over {over}; the baselines need no training.\n\n" + table(["support", *names], rows)


def metric_by_shots(evaluation: Mapping[str, Any], narrow: bool = False) -> Figure:
    """Draw the metric of the run and of each baseline by the size of the support set, with 95 % intervals.

    Args:
        evaluation: what ``RUN/evaluations/NAME.json`` holds, with its ``by_shots``.
        narrow: whether to draw for a telephone.
    """
    metric, found = shown_metric(evaluation), evaluation["by_shots"]
    subtitle = f"{evaluation['part']} tasks; with 95 % intervals"
    size = (style.NARROW, 4.2) if narrow else (5.6, 3.9)
    figure = style.new_figure(*size, f"{_metric(evaluation)} by the number of support examples", subtitle)
    axes = figure.subplots()
    handles = []
    for place, name in enumerate(found[0]["scores"]):
        scores = [Score(**one["scores"][name]) for one in found]
        # Side by side, so that intervals that overlap can be told apart.
        x = [index + 0.07 * (place - (len(found[0]["scores"]) - 1) / 2) for index in range(len(found))]
        handles.append(
            axes.errorbar(
                x, [score.mean for score in scores], [score.interval for score in scores],
                color=_COLOURS[place % len(_COLOURS)], marker=_MARKERS[place % len(_MARKERS)], markersize=4,
                linewidth=1.7 if place == 0 else 1.1, elinewidth=1, capsize=2, label=name,
            )
        )  # fmt: skip
    axes.set_xticks(range(len(found)), [str(one["shots"]) for one in found])
    style.dress(axes, x="support examples", y=style.axis_label(metric["name"], metric["unit"]))
    style.in_unit(axes, metric["unit"])
    style.legend(figure, handles, columns=2 if narrow else 4)
    return figure


def _metric(evaluation: Mapping[str, Any]) -> str:
    name = shown_metric(evaluation)["name"]
    return f"{name[:1].upper()}{name[1:]}"
