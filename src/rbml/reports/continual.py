"""What a learner knows of a stream: its accuracy by the number of classes seen, beside heads that take no steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rbml.reports import style
from rbml.reports.text import table
from rbml.training import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = (style.BLUE, style.MUTED, style.RED, style.GREEN, style.PURPLE)
_MARKERS = "osD^v"


def by_classes(evaluations: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what was found by the number of classes seen; ``None`` where no evaluation has it."""
    return next((one["by_classes"] for one in evaluations.values() if one.get("by_classes")), None)


def classes_table(found: Mapping[str, Any]) -> str:
    """Return a table with a row per number of classes seen, and a column per learner.

    >>> score = {"mean": 0.5, "interval": 0.1, "tasks": 2, "groups": None}
    >>> lines = {"learned": [score]}
    >>> print(classes_table({"marks": [10], "shots": 5, "streams": 2, "lines": lines}).splitlines()[-1])
    | 10 | 50.0 ± 10.0 |
    """
    names = list(found["lines"])
    rows = [
        [str(mark), *(Score(**found["lines"][name][place]).shown("%") for name in names)]
        for place, mark in enumerate(found["marks"])
    ]
    head = (
        f"Accuracy in % over all classes seen so far, {found['streams']} streams of {found['shots']} examples per "
        "class, each seen once; mean ± 95 % interval over streams."
    )
    return head + "\n\n" + table(["classes seen", *names], rows)


def accuracy_by_classes(found: Mapping[str, Any], narrow: bool = False) -> Figure:
    """Draw the accuracy over all classes seen against their number, one line per learner.

    Args:
        found: the ``by_classes`` of what ``RUN/evaluations/NAME.json`` holds.
        narrow: whether to draw for a telephone.
    """
    subtitle = f"{found['streams']} streams, {found['shots']} examples per class, each seen once"
    figure = style.new_figure(
        *((style.NARROW, 4.2) if narrow else (5.6, 3.9)), "What is known of all classes seen so far", subtitle
    )
    axes = figure.subplots()
    handles = []
    for place, (name, line) in enumerate(found["lines"].items()):
        handles += axes.plot(
            found["marks"], [score["mean"] for score in line],
            color=_COLOURS[place % len(_COLOURS)], marker=_MARKERS[place % len(_MARKERS)], markersize=4,
            linewidth=1.7 if place == 0 else 1.1, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(found["marks"], [str(mark) for mark in found["marks"]])
    axes.minorticks_off()
    axes.set_ylim(0, 1)
    style.dress(axes, x="classes seen", y=style.axis_label("accuracy", "%"))
    style.in_unit(axes, "%")
    style.legend(figure, handles)
    return figure
