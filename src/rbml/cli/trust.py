"""How ``rbml adapt`` and ``rbml score`` say how far a model can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rbml.cli.show import console, table

if TYPE_CHECKING:
    from torch import Tensor

    from rbml.training.estimate import Estimate

BACKBONE = "the backbone's features"
"""What baselines look at where there is a backbone: as :func:`rbml.training.concerns.features` calls it."""

FEW = 12
"""The largest number of classes whose confusions are shown as a matrix."""

_PAIRS = 8


def show_estimate(found: Estimate, names: Sequence[str], noun: str, backbone: bool = False) -> None:
    """Print how well new examples are likely to be predicted, class by class, and beside baselines.

    Args:
        found: the estimate.
        names: of the classes.
        noun: the word for one example.
        backbone: whether what is judged is a backbone without any run, which has not learned across tasks.
    """
    metric = found.metric
    low, high = (metric.shown(bound) for bound in (found.low, found.high))
    classes = found.confusion is not None
    left = f"one {noun} of each class" if classes else f"some of the {noun}s"
    guessing = "" if found.chance is None else f"; guessing gives {metric.shown(found.chance)}"
    console.print(
        f"Expected on new {noun}s: {metric.name} {metric.shown(found.value)} (95 % interval {low} to {high}{guessing})."
    )
    how = f"Found from {found.total} {noun}s by learning {found.folds} times without {left}"
    if classes:
        how += (
            f"; that the {noun}s left out help as well is counted in, as on the validation tasks of the run"
            if found.corrected
            else "; with them it may be a little better"
        )
    console.print(f"{how}.")
    if found.confusion is not None:
        show_confusion(found.confusion, names, noun)
    _show_rivals(found, noun, backbone)


def show_confusion(confusion: Tensor, names: Sequence[str], noun: str) -> None:
    """Print the accuracy of each class, and what was taken for what: a matrix, or the most confused pairs of many."""
    totals, right = confusion.sum(1).tolist(), confusion.diagonal().tolist()
    shares = [f"{one / total:.0%}" if total else "-" for one, total in zip(right, totals, strict=True)]
    if len(names) <= FEW:
        rows = [
            [name, share, *(str(count) if count else "." for count in row)]
            for name, share, row in zip(names, shares, confusion.tolist(), strict=True)
        ]
        heads = [str(place + 1) for place in range(len(names))]
        numbered = [[f"{place + 1} {row[0]}", *row[1:]] for place, row in enumerate(rows)]
        title = f"the {noun}s of each class (row), and which class they were taken for (column)"
        table(title, ["class", "right", *heads], numbered)
        return
    worst = sorted(range(len(names)), key=lambda place: right[place] / totals[place] if totals[place] else 2)
    shown = [[names[place], shares[place], str(totals[place])] for place in worst[:_PAIRS] if totals[place]]
    table("the classes that are hardest to tell", ["class", "right", f"{noun}s"], shown)
    pairs = [
        (count, names[row], names[column])
        for row, line in enumerate(confusion.tolist())
        for column, count in enumerate(line)
        if count and row != column
    ]
    pairs.sort(key=lambda pair: -pair[0])
    if pairs:
        rows = [[name, taken, str(count)] for count, name, taken in pairs[:_PAIRS]]
        table("most often confused", ["class", "taken for", "times"], rows, text=2)


def _show_rivals(found: Estimate, noun: str, backbone: bool) -> None:
    if not found.rivals:
        return
    metric, who = found.metric, "the backbone with its head" if backbone else "the learner"
    rows = [[who if backbone else "this learner", metric.shown(found.measured)]]
    rows += [[rival.name, metric.shown(rival.value)] for rival in found.rivals]
    others = "simpler methods" if backbone else "what needs no learning across tasks"
    table(f"on the same {noun}s, beside {others}", ["method", metric.name], rows)
    best = found.rivals[0]
    same_features = backbone and best.name.endswith(BACKBONE)
    if found.verdict == "behind":
        so = "another head suits these better" if same_features else f"{who} does not help with this task"
        console.print(f"Warning: {best.name} does better (p = {best.p:.2g}): {so}.")
    elif found.verdict == "even":
        console.print(
            f"{who.capitalize()} and {best.name} cannot be told apart on so few {noun}s (p = {best.p:.2g})"
            + (f": there is no sign that {who} helps with this task." if best.ahead and not same_features else ".")
        )
    else:
        console.print(f"{who.capitalize()} does better than {best.name} (p = {best.p:.2g}).")
