"""One task to look at: what the learner was shown, and what it made of the queries."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rbml.data.extras import require
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.reports import style
from rbml.tasks import FewShot
from rbml.training import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES, SHOTS, QUERIES = 10, 5, 6
"""The most that is shown."""

_ROW, _GAP, _NAMES, _INCH = 1.38, 0.45, 1.5, 0.92
"""Pitch of the rows, gap before the queries and room for class names, in pictures; a picture's width in inches."""


def gallery(source: RunFolder | Learner, tasks: FewShot, seed: int) -> Figure:
    """Draw one task by class: its support pictures, and its queries with the predicted class and its probability.

    Predictions are those of ``learner.adapt``: of each query alone. Drawings on a dark ground are shown dark on white.

    Args:
        source: a run (its best learner) or a learner.
        tasks: where the task comes from; it may have other ways than the learner was trained on.
        seed: which task: ``tasks.draw([seed])``.

    Raises:
        UsageError: if the examples are not grey or colour pictures ``(1 or 3, h, w)``, or do not fit the model.
        CheckpointError: if the run has no checkpoint yet.
    """
    learner = source.learner() if isinstance(source, RunFolder) else source
    episodes = tasks.draw([seed])
    support, query = episodes.support.x[0], episodes.query.x[0]
    if support.dim() != 4 or support.shape[1] not in (1, 3):
        raise UsageError(f"a gallery needs pictures (1 or 3, h, w), not examples of shape {tuple(support.shape[1:])}")
    with torch.no_grad():
        adapted = learner.adapt(support, episodes.support.y[0], ways=tasks.ways)
        probability, predicted = adapted(query).softmax(1).max(1)
    right = predicted == episodes.query.y[0]
    names = [tasks.names[index] for index in tasks.chosen(seed)]
    short = _short(names)

    ways, shots, queries = min(tasks.ways, CLASSES), min(tasks.shots, SHOTS), min(tasks.queries, QUERIES)
    title = f"One task: {tasks.ways} ways, {tasks.shots} {'shot' if tasks.shots == 1 else 'shots'}"
    width, height = _NAMES + shots + _GAP + queries + 0.15, ways * _ROW + 0.38
    score = f"{int(right.sum())} of {len(right)} queries right{_left_out(tasks, ways, shots, queries)}"
    tall = height * _INCH + 0.5
    figure = style.new_figure(width * _INCH, tall, title, score, arrange=False)
    axes = figure.add_axes((0, 0, 1, height * _INCH / tall))
    axes.set(xlim=(-_NAMES, width - _NAMES), ylim=(height - 0.32, -0.38), aspect="equal")
    axes.axis("off")
    text: dict[str, Any] = {"fontsize": style.LABEL, "color": style.MUTED, "va": "bottom"}
    axes.text(0.05, -0.1, "support", **text)
    axes.text(shots + _GAP + 0.05, -0.1, "queries: predicted class, its probability", **text)

    look = _look(support, query)
    for row in range(ways):
        label = names[row] if short is names else "\n".join([short[row], *_wrapped(names[row])])
        axes.text(-0.1, row * _ROW + 0.5, label, ha="right", va="center", fontsize=style.SMALL, color=style.INK)
        for place in range(shots):
            _picture(axes, support[row * tasks.shots + place], place, row * _ROW, style.FAINT, 0.8, look)
        for place in range(queries):
            index = row * tasks.queries + place
            colour = style.RIGHT if right[index] else style.WRONG
            x = shots + _GAP + place
            _picture(axes, query[index], x, row * _ROW, colour, 2.0, look)
            caption = f"{short[int(predicted[index])]}, {100 * probability[index].item():.0f} %"
            caption += "" if right[index] else f"\nis {short[row]}"
            axes.text(x + 0.5, row * _ROW + 1.0, caption, ha="center", va="top", fontsize=6.8, color=colour,
                      linespacing=1.15)  # fmt: skip
    return figure


def _short(names: list[str]) -> list[str]:
    """Return names that fit below a picture: the classes' own, or numbers where one is too long."""
    return names if max(map(len, names)) <= 10 else [f"class {index}" for index in range(len(names))]


def _wrapped(name: str) -> list[str]:
    """Return a long name in at most three lines, broken after a slash where it has one."""
    lines = [line.replace("/ ", "/") for line in wrap(name.replace("/", "/ "), 18)]
    return lines if len(lines) <= 3 else [*lines[:2], f"{lines[2][:17]}…"]


def _left_out(tasks: FewShot, ways: int, shots: int, queries: int) -> str:
    there = (("classes", ways, tasks.ways), ("shots a class", shots, tasks.shots))
    kinds = (*there, ("queries a class", queries, tasks.queries))
    parts = [f"{shown} of {all_of_them} {what}" for what, shown, all_of_them in kinds if shown < all_of_them]
    return f"; shown are {', '.join(parts)}" if parts else ""


def _look(support: Tensor, query: Tensor) -> dict[str, Any]:
    """Return how values become colours, the same for the whole task."""
    both = torch.cat([support.flatten(), query.flatten()])
    low, high = min(0.0, both.min().item()), max(1.0, both.max().item())
    ink_on_dark = support.shape[1] == 1 and both.median().item() < low + 0.25 * (high - low)
    return {"vmin": low, "vmax": high, "cmap": "gray_r" if ink_on_dark else "gray"}


def _picture(axes: Axes, x: Tensor, left: float, top: float, colour: str, width: float, look: dict[str, Any]) -> None:
    pixels = ((x - look["vmin"]) / (look["vmax"] - look["vmin"])).permute(1, 2, 0).cpu().numpy()
    tall, wide = pixels.shape[:2]
    half = (0.45 * wide / max(tall, wide), 0.45 * tall / max(tall, wide))
    box = (left + 0.5 - half[0], left + 0.5 + half[0], top + 0.5 + half[1], top + 0.5 - half[1])
    shown = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    axes.imshow(shown, extent=box, cmap=look["cmap"], vmin=0, vmax=1, interpolation="nearest", aspect="equal")
    patches = require("matplotlib.patches", "report", "drawing a report")
    frame = patches.Rectangle((box[0], box[3]), 2 * half[0], 2 * half[1], fill=False, edgecolor=colour, linewidth=width)
    axes.add_patch(frame)
