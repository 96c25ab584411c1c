"""``rbml adapt --store sums``: learn without earlier examples, and say what it cost the classes known before."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rbml.cli.adapt import NEXT, NOUNS, counted, known_before, warn
from rbml.cli.show import console, table
from rbml.cli.trust import show_confusion
from rbml.data.batch import Batch
from rbml.errors import UsageError
from rbml.training import adapting, going_on
from rbml.training.concerns import plain

if TYPE_CHECKING:
    from rbml.data.inputs import RawExamples
    from rbml.training.going_on import Cost, Grown
    from rbml.training.learned import Learned

_WORST = 8  # the classes that lost most are shown, at most so many


def command(learned: Learned, found: RawExamples, out: Path, estimating: bool) -> None:
    """Learn the new examples alone, write the file, and print what came of it.

    Args:
        learned: the learner, with its file if it comes from one.
        found: the new examples.
        out: the file to write.
        estimating: whether to find out how well the model does.

    Raises:
        UsageError: if the learner cannot go on without its examples, or there is only one class.
    """
    modality, target = learned.setting.modality, learned.setting.target
    if target.kind != "classes":
        raise UsageError("--store sums is for classes, but these examples have real values: leave it out")
    noun = NOUNS.get(plain(modality).kind, "example")
    stored = modality.read(found.raw)
    began = time.perf_counter()
    if learned.file is None:
        y, names = target.read(found.labels or [], found.targets)
    else:
        y, names = adapting.labelled(learned, found.labels or [])
    warn(learned, found, stored, noun)
    examples = Batch(stored, y)
    prior = known_before(learned, examples, names) if estimating else None
    grown = going_on.grow(learned, examples, names, prior, estimating)
    grown.save(out)
    counts = {label: int(number) for label, number in enumerate(grown.remembered.sums.number.tolist())}
    known = 0 if learned.file is None else len(learned.file.names)
    what = f"Went on from {sum(counts.values()) - len(y)} {noun}s of {known} classes with" if known else "Learned from"
    console.print(
        f"{what} {len(y)} {noun}s in {time.perf_counter() - began:.1f} s; now {len(names)} classes: "
        f"{counted(counts, names)}"
    )
    console.print(f"The file keeps sums of their features and none of the {noun}s.")
    if estimating:
        _say_accuracy(grown, noun)
        if known:
            _say_cost(grown.cost, names[:known], noun)
    console.print(f"Next: rbml predict {shlex.quote(str(out))} {NEXT.get(noun, 'FILE')}...")


def _say_accuracy(grown: Grown, noun: str) -> None:
    found = grown.accuracy()
    if found is None:
        console.print(f"With one {noun} per class, how well new {noun}s are predicted cannot be found from them.")
        return
    value, low, high = (f"{share:.1%}" for share in found)
    console.print(f"Expected on new {noun}s: accuracy {value} (95 % interval {low} to {high}).")
    console.print(
        f"Found from {len(grown.truth)} {noun}s whose features are remembered, each predicted from all the others."
    )
    show_confusion(grown.confusion(), grown.names, noun)


def _say_cost(cost: Cost | None, names: Sequence[str], noun: str) -> None:
    """Print what the new examples did to the classes that were known before."""
    if cost is None:
        console.print(f"With one {noun} in each earlier class, what the new ones cost them cannot be found.")
        return
    before, after = cost.accuracy()
    console.print(
        f"Earlier classes ({len(names)}, {len(cost.truth)} {noun}s): {before:.1%} right before, {after:.1%} with the "
        f"new {noun}s: {_change(before, after)}."
    )
    rows = [(name, *cost.accuracy(label)) for label, name in enumerate(names)]
    changed = [row for row in rows if not math.isnan(row[1]) and row[1] != row[2]]
    changed.sort(key=lambda row: row[2] - row[1])
    if changed:
        shown = [[name, f"{first:.0%}", f"{later:.0%}"] for name, first, later in changed[:_WORST]]
        table("earlier classes that changed, the largest loss first", ["class", "before", "now"], shown)


def _change(before: float, after: float) -> str:
    points = 100 * (after - before)
    if abs(points) < 0.05:
        return "nothing was lost"
    return f"{abs(points):.1f} points {'less' if points < 0 else 'more'}"
