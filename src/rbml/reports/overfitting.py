"""Does a run overfit? The gap between new tasks of the training part and validation tasks, and how it developed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rbml.data.targets import Metric
from rbml.reports import style
from rbml.reports.curves import best_validation
from rbml.reports.facts import Facts

AGREE = 3
"""So many validations in a row, the last ones, must all be worse than the best one."""

EARLY = 2 / 3
"""The best validation must be no later than after this share of the steps taken."""

Entries = Sequence[dict[str, Any]]


def overfits(entries: Entries, metric: Metric) -> bool:
    """Return whether a run overfits: it gets better on its training classes, and worse on others, long before its end.

    Three things must hold, so that noise is rarely called overfitting: the best validation is early (:data:`EARLY`);
    each of the last :data:`AGREE` validations is worse than it, beyond the 95 % interval of the difference over the
    same tasks; and new tasks of the training part have become better since.

    Args:
        entries: of the journal.
        metric: that is validated.
    """
    measured = [entry for entry in entries if "validation_seen" in entry]
    best = best_validation(measured, metric)
    if best is None or best["step"] > EARLY * measured[-1]["step"]:
        return False
    last = measured[-AGREE:]
    worse = [entry.get("behind", 0.0) - entry.get("behind_interval", 0.0) for entry in last if entry is not best]
    if len(worse) < AGREE or not all(value > 0 for value in worse):  # also where an interval is not a number
        return False
    since = float(np.mean([entry["validation_seen"] for entry in last]))
    return metric.improves(since, float(best["validation_seen"]))


def stopped_early(entries: Entries, about: Facts) -> bool:
    """Return whether a run has ended because no validation was better for long enough."""
    measured = [entry for entry in entries if "validation" in entry]
    best = best_validation(measured, about.metric)
    if not about.patience or best is None or entries[-1]["step"] >= about.meta_steps:
        return False
    return bool(sum(entry["step"] > best["step"] for entry in measured) >= about.patience)


def gap(entries: Entries, about: Facts) -> str:
    """Return what the two curves of validations say, in words; nothing where there are no two curves."""
    metric = about.metric
    measured = [entry for entry in entries if "validation_seen" in entry]
    best = best_validation(measured, metric)
    if best is None:
        return ""
    last = measured[-1]
    seen, other = (_shown(metric, last[name]) for name in ("validation_seen", "validation"))
    parts = "classes" if about.setting.target.kind == "classes" else "groups"
    text = (
        f"At the last validation, {metric.name} was {seen} on new tasks of the training {parts} and {other} on tasks "
        f"of validation {parts}, which training never uses."
    )
    if not overfits(entries, metric):
        return f"{text} There is no clear sign that longer training has made the latter worse.\n"
    at = style.count(best["step"])
    return (
        f"**This run overfits.** {text} The best validation was {_shown(metric, best['validation'])} at step {at}; "
        f"since then the training {parts} have become better and others worse, by more than chance explains. The "
        f"learner of step {at} is kept and used. More training {parts} help most; else try `--patience 5` (end early), "
        "`--dropout 0.1`, or a smaller model.\n"
    )


def _shown(metric: Metric, value: float) -> str:
    return metric.shown(value).replace("%", " %")
