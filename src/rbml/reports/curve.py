"""A metric against the number of labelled examples: what ``rbml curve`` says, and its figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rbml.reports import style
from rbml.training import Score
from rbml.training.rivals import FINE_TUNING, INPUTS, LEARNER, SCRATCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = {LEARNER: style.BLUE, FINE_TUNING: style.RED, SCRATCH: style.MUTED}
_OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito (2008)
_DASHES: Mapping[str, Any] = {
    **dict.fromkeys((LEARNER, FINE_TUNING, "features"), "-"),
    **dict.fromkeys((SCRATCH, INPUTS), (0, (4, 2))),
}
_DOTS = (0, (1, 1.5))  # of what else can be seen without a network: colours, words
_LEAST_GAP = 0.045  # between two labels, as a share of the height of the axes


class Point(NamedTuple):
    """One method with one number of shots.

    Attributes:
        shots: the number of support examples.
        score: over the tasks.
        ahead: by how much the learner is better, over the same tasks; ``None`` for the learner itself.
    """

    shots: int
    score: Score
    ahead: Score | None


Lines = dict[str, list[Point]]


def lines(result: Mapping[str, Any]) -> Lines:
    """Return the points of each method that were measured, in the order of the shots."""
    found: Lines = {}
    for method in result["methods"]:
        found[method["name"]] = [
            Point(one["shots"], Score(**one["score"]), one["learner_better_by"] and Score(**one["learner_better_by"]))
            for one in method["by_shots"]
            if one["score"] is not None
        ]
    return found


def cells(result: Mapping[str, Any]) -> list[list[str]]:
    """Return a table: a row per method, a column per number of shots; empty where nothing was measured yet."""
    unit = result["metric"]["unit"]
    known = {name: {point.shots: point for point in points} for name, points in lines(result).items()}
    return [
        [name, *(points[shots].score.shown(unit) if shots in points else "" for shots in result["shots"])]
        for name, points in known.items()
    ]


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Return where the learner is ahead of everything else, and from how many examples on which method is as good.

    A method is as good where the 95 % interval of the paired difference includes zero or lies on its side. Nothing is
    said of being ahead of all where one of them was not measured.
    """
    known = lines(result)
    own, others = known.pop(LEARNER, []), {name: points for name, points in known.items() if points}
    if not own or not others:
        return []
    said = []
    where = [
        shots
        for shots in result["shots"]
        if len(points := [one for line in others.values() for one in line if one.shots == shots]) == len(others)
        and all(_is_ahead(one) for one in points)
    ]
    if where == [one.shots for one in own]:
        said.append("The learner is ahead of all others at every number of examples that was measured.")
    elif where:
        said.append(f"The learner is ahead of all others with {_listed(where)} {_examples(result, where[-1])}.")
    elif all(len(points) == len(own) for points in others.values()):
        said.append("At no number of examples is the learner ahead of all others.")
    found: dict[tuple[str, str], list[str]] = {}
    for name, points in others.items():
        if crossing := _crossing(points, result):
            found.setdefault(crossing, []).append(name)
    for (where_from, what), names in found.items():
        said.append(f"{where_from} {_listed(names)} {'is' if len(names) == 1 else 'are'} {what}.")
    return said


def _is_ahead(point: Point) -> bool:
    return point.ahead is not None and point.ahead.mean - point.ahead.interval > 0


def _is_behind(point: Point) -> bool:
    """Return whether the other method is better than the learner."""
    return point.ahead is not None and not point.ahead.mean + point.ahead.interval >= 0  # also where it diverged


def _crossing(points: Sequence[Point], result: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return from where on, or up to where, a method is as good as the learner, or better; ``None`` if it never is."""
    as_good = _from_where_on(points, lambda point: not _is_ahead(point))
    if as_good is None:
        until = _from_where_on(list(reversed(points)), lambda point: not _is_ahead(point))
        if until is None:
            return None
        better = all(_is_behind(point) for point in points if point.shots <= until)
        where = "With" if until == points[0].shots else "Up to"
        return f"{where} {until} {_examples(result, until)}", "better" if better else "as good"
    later = _from_where_on(points, _is_behind)
    if later == as_good:
        return _from(as_good, points, result), "better"
    more = f", and from {later} on better" if later else ""
    return _from(as_good, points, result), f"as good{more}"


def _from_where_on(points: Sequence[Point], holds: Any) -> int | None:
    """Return the first number of shots from which on, to the last one, something holds; ``None`` if there is none."""
    found = None
    for point in reversed(points):
        if not holds(point):
            break
        found = point.shots
    return found


def _from(shots: int, points: Sequence[Point], result: Mapping[str, Any]) -> str:
    if shots == points[0].shots:
        return "At every number of examples" if len(points) > 1 else f"With {shots} {_examples(result, shots)}"
    return f"From {shots} {_examples(result, shots)} on"


def _examples(result: Mapping[str, Any], number: int) -> str:
    return f"example{'s' * (number != 1)}{' per class' * result['per_class']}"


def _listed(parts: Sequence[object]) -> str:
    """Return a list in words.

    >>> _listed([1, 2, 5]), _listed([3])
    ('1, 2 and 5', '3')
    """
    *first, last = map(str, parts)
    return f"{', '.join(first)} and {last}" if first else last


def figure(result: Mapping[str, Any], title: str, subtitle: str) -> Figure:
    """Draw the lines of all methods, with 95 % intervals and their names at the right.

    Args:
        result: of :func:`rbml.training.curve.result`.
        title: of the figure.
        subtitle: the tasks.
    """
    metric, known = result["metric"], {name: points for name, points in lines(result).items() if points}
    drawn = style.new_figure(8.2, 4.6, title, subtitle)
    axes = drawn.subplots()
    axes.set_xscale("log")
    kinds = list(dict.fromkeys(name.partition(" on ")[0] for name in known if name not in _COLOURS))
    colours = _COLOURS | {kind: _OTHERS[place % len(_OTHERS)] for place, kind in enumerate(kinds)}
    ends = {}
    for place, (name, points) in enumerate(known.items()):
        colour = colours[name.partition(" on ")[0]]
        # Side by side, so that intervals that overlap can be told apart.
        x = [point.shots * (1 + 0.012 * (place - len(known) / 2)) for point in points]
        axes.errorbar(
            x, [one.score.mean for one in points], [one.score.interval for one in points], color=colour,
            linestyle=_DASHES.get(name.partition(" on ")[2] or name, _DOTS),
            marker="o", markersize=4.5 if name == LEARNER else 3.2, linewidth=2.2 if name == LEARNER else 1.3,
            elinewidth=0.9, zorder=4 if name == LEARNER else 3,
        )  # fmt: skip
        ends[name] = (x[-1], points[-1].score.mean, colour)
    shots = result["shots"]
    axes.set_xticks(shots, [str(one) for one in shots])
    axes.minorticks_off()
    axes.set_xlim(shots[0] * 0.9, shots[-1] * 1.12)
    words = "examples per class (support set)" if result["per_class"] else "examples (support set)"
    style.dress(axes, x=words, y=style.axis_label(metric["name"], metric["unit"]))
    style.in_unit(axes, metric["unit"])
    _label(axes, ends)
    return drawn


def _label(axes: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Write the name of each line beside its end; names that would overlap are moved apart."""
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda name: ends[name][1])
    heights = [(ends[name][1] - low) / (high - low) for name in order]
    for place, height in enumerate(spread(heights, _LEAST_GAP)):
        x, y, colour = ends[order[place]]
        axes.annotate(
            order[place], (x, y), xytext=(1.03, height), textcoords="axes fraction", color=colour, va="center",
            fontsize=style.LABEL, fontweight="bold" if order[place] == LEARNER else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3},
        )  # fmt: skip


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Return rising heights, moved as little as needed so that neighbours are at least ``gap`` apart.

    >>> [round(one, 3) for one in spread([0.1, 0.5, 0.5], 0.1)]
    [0.1, 0.45, 0.55]
    """
    groups: list[list[float]] = []  # the centre and the number of labels that touch one another
    for height in heights:
        groups.append([height, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (first, some), (second, more) = groups[-2], groups.pop()
            groups[-1] = [(first * some + second * more) / (some + more), some + more]
    return [centre + gap * (place - (number - 1) / 2) for centre, number in groups for place in range(int(number))]
