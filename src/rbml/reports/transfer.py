"""How well learning on one source carries over to another: what ``rbml transfer`` says, and its heat map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rbml.data.extras import require
from rbml.reports import style
from rbml.training import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def cells(result: Mapping[str, Any]) -> list[list[str]]:
    """Return a table: a row per run and baseline, a column per target; a star where a run was trained on the target."""
    unit = result["metric"]["unit"]
    return [
        [
            row["name"],
            *(
                (Score(**cell["score"]).shown(unit) + " *" * cell["own"]) if cell["score"] else ""
                for cell in row["cells"]
            ),
        ]
        for row in result["rows"]
    ]


def sentences(result: Mapping[str, Any]) -> list[str]:
    """Return for each target which run is best, and whether it is ahead of what needs no learning."""
    said = []
    for place, target in enumerate(result["targets"]):
        runs = {row["name"]: row["cells"][place] for row in result["rows"] if row["run"]}
        known = {name: cell for name, cell in runs.items() if cell["score"] and cell["ahead"]}
        if not known:
            continue
        sign = 1 if result["metric"]["better"] == "higher" else -1
        best = max(known, key=lambda name: sign * known[name]["score"]["mean"])
        ahead = Score(**known[best]["ahead"])
        margin = ahead.shown(result["metric"]["unit"])
        if ahead.mean - ahead.interval > 0:
            how = f"{margin} better than the best method without learning across tasks"
        elif ahead.mean + ahead.interval < 0:
            how = f"and yet {known[best]['rival']}, which needs no training, is better (difference {margin})"
        else:
            how = f"and cannot be told apart from {known[best]['rival']}, which needs no training (difference {margin})"
        said.append(f"{target}: of the runs {best} is best, {how}.")
    return said


def figure(result: Mapping[str, Any], title: str, subtitle: str) -> Figure:
    """Draw the matrix as a heat map with the numbers in its cells; runs on the target itself have a frame.

    Args:
        result: of ``rbml transfer``.
        title: of the figure.
        subtitle: the tasks.
    """
    rows, targets, metric = result["rows"], result["targets"], result["metric"]
    names = [row["name"] for row in rows]
    if any(cell["own"] for row in rows for cell in row["cells"]):
        subtitle += "; framed: trained on other classes of the same source"
    width = 1.9 + 0.075 * max(map(len, names)) + 1.15 * len(targets)
    drawn = style.new_figure(max(width, 5.2), 1.7 + 0.42 * len(rows), title, subtitle)
    axes = drawn.subplots()
    means = [[cell["score"]["mean"] if cell["score"] else float("nan") for cell in row["cells"]] for row in rows]
    known = [value for line in means for value in line if value == value]
    low, high = min(known), max(known)
    colours = "cividis" if metric["better"] == "higher" else "cividis_r"
    axes.imshow(means, cmap=colours, aspect="auto", vmin=low, vmax=high + 1e-9)
    for y, row in enumerate(rows):
        for x, cell in enumerate(row["cells"]):
            if not cell["score"]:
                continue
            share = (means[y][x] - low) / (high - low + 1e-9)
            light = (share if metric["better"] == "higher" else 1 - share) > 0.55
            ink = style.INK if light else "white"
            text = Score(**cell["score"]).shown(metric["unit"])
            weight = "bold" if cell["own"] else "normal"
            axes.text(x, y, text, ha="center", va="center", fontsize=style.LABEL, color=ink, fontweight=weight)
            if cell["own"]:
                frame = {"linewidth": 2.0, "edgecolor": style.RED, "facecolor": "none", "zorder": 5}
                axes.add_patch(_rectangle(x, y, frame))
    axes.set_xticks(range(len(targets)), targets)
    axes.set_yticks(range(len(rows)), names)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    style.dress(axes, x="tested on", grid="")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    runs = sum(row["run"] for row in rows)
    if 0 < runs < len(rows):
        axes.axhline(runs - 0.5, color="white", linewidth=4, zorder=2)
    return drawn


def _rectangle(x: float, y: float, look: Mapping[str, Any]) -> Any:
    patches = require("matplotlib.patches", "report", "drawing a report")
    return patches.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, **look)
