from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rbml.data.targets.classes import ACCURACY
from rbml.reports.overfitting import overfits
from rbml.reports.rivals import ahead, best_baseline, in_short


def entries(validation: list[float], seen: list[float], interval: float = 0.01) -> list[dict[str, Any]]:
    """A journal with these validations; ``behind`` is the distance from the best one before."""
    found: list[dict[str, Any]] = []
    for place, (value, other) in enumerate(zip(validation, seen, strict=True)):
        found.append({"step": 100 * (place + 1), "validation": value, "validation_seen": other})
        if place:
            found[-1] |= {"behind": max(validation[:place]) - value, "behind_interval": interval}
    return found


UP = [0.5, 0.6, 0.7, 0.8, 0.9, 0.95]


def test_worse_on_others_and_better_on_its_own_is_overfitting() -> None:
    assert overfits(entries([0.5, 0.6, 0.58, 0.55, 0.54, 0.5], UP), ACCURACY)


@pytest.mark.parametrize(
    ("validation", "seen", "interval"),
    [
        ([0.5, 0.6, 0.58, 0.55, 0.54, 0.5], UP, 0.2),  # within the interval
        ([0.5, 0.6, 0.58, 0.55, 0.54, 0.5], UP[::-1], 0.01),  # it gets worse everywhere: it diverges
        ([0.5, 0.55, 0.56, 0.57, 0.6, 0.5], UP, 0.01),  # the best is near the end
        ([0.5, 0.6, 0.5, 0.5, 0.595, 0.5], UP, 0.01),  # it recovers in between
        ([0.6, 0.5], UP[:2], 0.01),
        ([], [], 0.01),
    ],
)
def test_what_else_there_is_is_not(validation: list[float], seen: list[float], interval: float) -> None:
    assert not overfits(entries(validation, seen, interval), ACCURACY)


def test_noise_is_rarely_called_overfitting() -> None:
    """Runs that have converged: the validations of the same 200 tasks differ by chance."""
    source, called = np.random.default_rng(0), 0
    for _ in range(300):
        tasks = 0.6 + 0.1 * source.standard_normal((20, 200))
        seen = 0.8 + 0.01 * source.standard_normal(20)
        found = entries(tasks.mean(1).tolist(), seen.tolist())
        best = 0
        for place in range(1, 20):
            gap = tasks[best] - tasks[place]
            found[place] |= {"behind": gap.mean(), "behind_interval": 1.96 * gap.std() / 200**0.5}
            best = place if gap.mean() < 0 else best
        called += overfits(found, ACCURACY)
    assert called <= 15


def evaluated(own: float, **others: float) -> dict[str, Any]:
    def score(mean: float) -> dict[str, Any]:
        return {"mean": mean, "interval": 0.01, "tasks": 100}

    sizes = {"tasks": "glyphs", "part": "test", "ways": 5, "shots": 1, "episodes": 100}
    return sizes | {
        "accuracy": {"inductive": [score(own)]},
        "baselines": {who: score(one) for who, one in others.items()},
    }


def test_who_is_ahead_is_said() -> None:
    assert ahead(evaluated(0.9, centroid=0.5)) == "The run is ahead of all baselines."
    assert ahead(evaluated(0.5, centroid=0.6, other=0.9)) == "**other is ahead of the run**: use it instead."
    assert "cannot be told apart" in ahead(evaluated(0.5, centroid=0.505))
    assert best_baseline(evaluated(0.5, scratch=float("nan"), centroid=0.1))[0] == "centroid"
    assert in_short({"a": evaluated(0.9, centroid=0.5)}) == (
        "- **glyphs, 5-way 1-shot** (100 test tasks): accuracy 90.0 ± 1.0 %; without learning across tasks at best "
        "50.0 ± 1.0 % (centroid).\n"
    )
