"""The learner beside baselines that learn nothing across tasks: figure, table, and who is ahead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rbml.reports import style
from rbml.reports.evaluations import labels, shown_metric
from rbml.reports.text import table
from rbml.training import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNED = "this run"


def compared(evaluations: Mapping[str, Any]) -> dict[str, Any]:
    """Return the evaluations that were made with baselines."""
    return {name: one for name, one in evaluations.items() if one.get("baselines")}


def scores_of(evaluation: Mapping[str, Any]) -> dict[str, Score]:
    """Return the score of the run after its last inner step, and those of the baselines, by name.

    The run's is the inductive one where there is one: as the baselines, it judges every query by itself.
    """
    kinds = evaluation[shown_metric(evaluation)["name"]]
    which = "inductive" if "inductive" in kinds else next(iter(kinds))
    found = {LEARNED: Score(**kinds[which][-1])}
    return found | {name: Score(**score) for name, score in evaluation["baselines"].items()}


def best_baseline(evaluation: Mapping[str, Any]) -> tuple[str, Score]:
    """Return the best baseline of an evaluation by name; one that has diverged is never the best."""
    sign = 1.0 if shown_metric(evaluation)["better"] == "higher" else -1.0
    others = {name: score for name, score in scores_of(evaluation).items() if name != LEARNED}
    name = max(others, key=lambda one: (others[one].mean == others[one].mean, sign * others[one].mean))
    return name, others[name]


def ahead(evaluation: Mapping[str, Any]) -> str:
    """Return who is ahead, in words."""
    metric, own = shown_metric(evaluation), scores_of(evaluation)[LEARNED]
    name, best = best_baseline(evaluation)
    sign = 1.0 if metric["better"] == "higher" else -1.0
    lead, doubt = sign * (own.mean - best.mean), (own.interval**2 + best.interval**2) ** 0.5
    if not abs(lead) <= doubt:  # also where one of them has diverged
        return (
            "The run is ahead of all baselines." if not lead < 0 else f"**{name} is ahead of the run**: use it instead."
        )
    return f"The run and {name} cannot be told apart: their difference is within the intervals."


def in_short(evaluations: Mapping[str, Any]) -> str:
    """Return one sentence per evaluation: how good the run is, and how good the best baseline."""
    lines = []
    for name, one in evaluations.items():
        metric = shown_metric(one)
        unit = f" {metric['unit']}".rstrip()
        kinds = one[metric["name"]]
        which = "inductive" if "inductive" in kinds else next(iter(kinds))
        title, under = labels(evaluations)[name]
        line = f"- **{title}** ({under}): {metric['name']} {Score(**kinds[which][-1]).shown(metric['unit'])}{unit}"
        if one.get("baselines"):
            best, score = best_baseline(one)
            line += f"; without learning across tasks at best {score.shown(metric['unit'])}{unit} ({best})"
        lines.append(f"{line}.")
    return "\n".join(lines) + "\n" if lines else ""


def rivals_table(evaluations: Mapping[str, Any]) -> str:
    """Return one table and one sentence per evaluation."""
    text = (
        "The baselines learn each task by itself, from its support examples alone: nothing is learned across tasks.\n"
    )
    for name, one in evaluations.items():
        unit = shown_metric(one)["unit"]
        rows = [[who, score.shown(unit), style.count(score.tasks)] for who, score in scores_of(one).items()]
        head = f"{shown_metric(one)['name']}" + (f" in {unit}" if unit else "")
        title, under = labels(evaluations)[name]
        text += f"\n**{title}** ({under}). {ahead(one)}\n\n" + table(["", head, "tasks"], rows)
    return text


def rivals_figure(evaluations: Mapping[str, Any], narrow: bool = False) -> Figure:
    """Draw the run and the baselines with 95 % intervals, one panel per evaluation.

    Args:
        evaluations: by name, those made with baselines.
        narrow: whether to draw for a telephone.
    """
    found = {name: scores_of(one) for name, one in evaluations.items()}
    heights = [0.75 + 0.27 * len(scores) for scores in found.values()]
    width = style.NARROW if narrow else 6.0
    subtitle = "mean over tasks, with 95 % intervals"
    figure = style.new_figure(width, sum(heights) + 0.9, "Beside what needs no learning across tasks", subtitle)
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    told = labels(evaluations)
    for axes, (name, scores) in zip(panels, found.items(), strict=True):
        metric = shown_metric(evaluations[name])
        for row, (who, score) in enumerate(scores.items()):
            colour = style.LEARNED if who == LEARNED else style.START
            if score.mean == score.mean:
                axes.errorbar(score.mean, row, xerr=score.interval, fmt="o", color=colour, markersize=5, capsize=2.5)
            text = score.shown(metric["unit"])
            axes.annotate(text, (1, row), (4, 0), ("axes fraction", "data"), "offset points", va="center",
                          fontsize=style.SMALL, color=style.INK, annotation_clip=False)  # fmt: skip
        axes.set_yticks(range(len(scores)), list(scores))
        axes.set_ylim(len(scores) - 0.4, -0.6)
        axes.margins(x=0.08)
        if metric["unit"] == "%":
            axes.xaxis.set_major_formatter(lambda share, place: f"{100 * share:.4g} %")
        label = style.axis_label(metric["name"], metric["unit"]) if axes is panels[-1] else ""
        style.dress(axes, ", ".join(told[name]), label, grid="x")
    return figure
