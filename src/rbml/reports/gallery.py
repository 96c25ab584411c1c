"""A figure of one task: its support examples, and its queries with their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import torch

from rbml.data.inputs import Shown
from rbml.devices import CPU, placed
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.reports import cells, style
from rbml.reports.truth import truth_figure
from rbml.tasks import FewShot, Mixture, TaskSource
from rbml.tasks.base import one
from rbml.training import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES, SHOTS, QUERIES = 10, 5, 6
"""The largest numbers that are shown."""

_ROW, _GAP = 1.38, 0.45
"""Pitch of the rows and gap before the queries, in cells."""


@dataclass(frozen=True)
class Room:
    """How much of a task fits into the figure.

    Attributes:
        shots: the largest number of support examples per class.
        queries: the largest number of queries per class.
        names: room for the names of classes, in cells.
        inch: the width of a cell in inches.
        letters: how many letters of a name fit into a line.
    """

    shots: int
    queries: int
    names: float
    inch: float
    letters: int


WIDE, TELEPHONE = Room(SHOTS, QUERIES, 1.5, 0.92, 18), Room(1, 3, 1.1, 0.655, 11)


def gallery(
    source: RunFolder | Learner, tasks: TaskSource, seed: int, narrow: bool = False, inputs: TaskSource | None = None
) -> Figure:
    """Draw one task: its support examples, and its queries with their predictions.

    For classes: one row per class, with its support examples, its queries, and the predicted class of each with its
    probability. For real values: predictions against true values. Predictions are those of ``learner.adapt``, for each
    query by itself. Examples are drawn as their modality shows them.

    Args:
        source: a run (its best learner) or a learner.
        tasks: where the task comes from; it may have other ways than the learner was trained on.
        seed: which task: ``tasks.draw([seed])``.
        narrow: whether to draw for a telephone: fewer examples.
        inputs: the same tasks with other inputs, which are drawn: the pictures of which ``tasks`` has features.

    Raises:
        UsageError: if the task does not fit the model, or has targets of another kind.
        CheckpointError: if the run has no checkpoint yet.
    """
    learner = source.learner() if isinstance(source, RunFolder) else source
    tasks = _source(tasks, seed)
    shown = tasks if inputs is None else _source(inputs, seed)
    task = placed(one(tasks.draw([seed]), 0), CPU)
    stored = placed(
        one(getattr(shown, "stored", shown.draw)([seed]), 0), CPU
    )  # a source that has no stored form is shown as the model sees it
    with torch.no_grad():
        x, y, mask = task.support
        prediction = learner.adapt(x, y, mask, ways=getattr(tasks, "ways", None))(task.query.x).cpu()
    tasks.target.check(prediction, task.query)
    support, query = (shown.modality.show(part.x) for part in (stored.support, stored.query))
    if isinstance(tasks, FewShot):
        records = tasks.target.decode(prediction, _names(tasks, seed))
        return _of_classes(tasks, seed, support, query, records, TELEPHONE if narrow else WIDE)
    if task.query.y.is_floating_point() and task.query.y.dim() == 2:
        metric = tasks.target.metrics[0]
        columns = getattr(tasks, "columns", ())
        if len(columns) != task.query.y.shape[1]:
            columns = [f"target {place + 1}" for place in range(task.query.y.shape[1])]
        records = tasks.target.decode(prediction, columns)
        value = metric.of(prediction, task.query).item()
        in_units = [part._replace(y=tasks.target.unscaled(part.y)) for part in (task.support, task.query)]
        return truth_figure(in_units[0], in_units[1], query, records, (metric, value), narrow)
    raise UsageError(f"a gallery shows few-shot classes and real values, not targets of the kind {tasks.target.kind}")


def _source(tasks: TaskSource, seed: int) -> TaskSource:
    """Return the source from which a mixture takes the task of this seed."""
    while isinstance(tasks, Mixture):
        tasks = tasks.sources[tasks.chosen_source(seed)]
    return tasks


def _names(tasks: FewShot, seed: int) -> list[str]:
    return [tasks.names[index] for index in tasks.chosen(seed)]


def _of_classes(
    tasks: FewShot, seed: int, support: Shown, query: Shown, records: list[dict[str, Any]], room: Room
) -> Figure:
    """Draw one row per class: its support examples, and its queries with their predictions."""
    names = _names(tasks, seed)
    right = [record["class"] == names[index // tasks.queries] for index, record in enumerate(records)]
    short = _short(names)

    ways, shots, queries = min(tasks.ways, CLASSES), min(tasks.shots, room.shots), min(tasks.queries, room.queries)
    title = f"One task: {tasks.ways} ways, {tasks.shots} {'shot' if tasks.shots == 1 else 'shots'}"
    width, height = room.names + shots + _GAP + queries + 0.15, ways * _ROW + 0.38
    score = f"{sum(right)} of {len(right)} queries right{_left_out(tasks, ways, shots, queries)}"
    tall = height * room.inch + (0.72 if room is TELEPHONE else 0.5)
    figure = style.new_figure(width * room.inch, tall, title, score, arrange=False)
    axes = figure.add_axes((0, 0, 1, height * room.inch / tall))
    axes.set(xlim=(-room.names, width - room.names), ylim=(height - 0.32, -0.38), aspect="equal")
    axes.axis("off")
    text: dict[str, Any] = {"fontsize": style.LABEL, "color": style.MUTED, "va": "bottom"}
    axes.text(0.05, -0.1, "support", **text)
    head = "queries" if room is TELEPHONE else "queries: predicted class, its probability"
    axes.text(shots + _GAP + 0.05, -0.1, head, **text)

    look = cells.Look.of([support, query])
    for row in range(ways):
        label = names[row] if short is names else "\n".join([short[row], *_wrapped(names[row], room.letters)])
        axes.text(-0.1, row * _ROW + 0.5, label, ha="right", va="center", fontsize=style.SMALL, color=style.INK)
        for place in range(shots):
            example = support.values[row * tasks.shots + place]
            cells.draw(axes, support.kind, example, place, row * _ROW, style.FAINT, 0.8, look)
        for place in range(queries):
            index = row * tasks.queries + place
            colour = style.RIGHT if right[index] else style.WRONG
            x = shots + _GAP + place
            cells.draw(axes, query.kind, query.values[index], x, row * _ROW, colour, 2.0, look)
            predicted = short[names.index(records[index]["class"])]
            chance = f"{100 * records[index]['probability']:.0f} %"
            if room is TELEPHONE:  # the colour of the frame and the name of the row say what is wrong
                caption = f"{predicted}\n{chance}"
            else:
                caption = f"{predicted}, {chance}" + ("" if right[index] else f"\nis {short[row]}")
            axes.text(x + 0.5, row * _ROW + 1.0, caption, ha="center", va="top", fontsize=6.8, color=colour,
                      linespacing=1.15)  # fmt: skip
    return figure


def _short(names: list[str]) -> list[str]:
    """Return names that fit below a picture: those of the classes, or numbers if one of them is too long."""
    return names if max(map(len, names)) <= 10 else [f"class {index}" for index in range(len(names))]


def _wrapped(name: str, letters: int) -> list[str]:
    """Return a long name in at most three lines, broken after a slash if it has one."""
    lines = [line.replace("/ ", "/") for line in wrap(name.replace("/", "/ "), letters)]
    return lines if len(lines) <= 3 else [*lines[:2], f"{lines[2][: letters - 1]}…"]


def _left_out(tasks: FewShot, ways: int, shots: int, queries: int) -> str:
    there = (("classes", ways, tasks.ways), ("shots per class", shots, tasks.shots))
    kinds = (*there, ("queries per class", queries, tasks.queries))
    parts = [f"{shown} of {all_of_them} {what}" for what, shown, all_of_them in kinds if shown < all_of_them]
    return f"; shown are {', '.join(parts)}" if parts else ""
