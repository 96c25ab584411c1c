"""What is said about a curve, its table, and that its figure shows every line."""

from __future__ import annotations

from typing import Any

import pytest

from rbml.reports import curve, transfer


def score(mean: float) -> dict[str, Any]:
    return {"mean": mean, "interval": 0.02, "tasks": 50, "groups": None}


def result(others: dict[str, list[float]]) -> dict[str, Any]:
    own = [0.6, 0.7, 0.8]

    def line(name: str, values: list[float]) -> dict[str, Any]:
        points = [
            {
                "shots": shots,
                "score": score(value),
                "learner_better_by": score(mine - value) if name != "learner" else None,
            }
            for shots, value, mine in zip((1, 5, 20), values, own, strict=True)
        ]
        return {"name": name, "about": "", "by_shots": points}

    methods = [line("learner", own), *(line(name, values) for name, values in others.items())]
    metric = {"name": "accuracy", "better": "higher", "unit": "%"}
    return {"metric": metric, "shots": [1, 5, 20], "per_class": True, "methods": methods}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.5, 0.6, 0.7], ["The learner is ahead of all others at every number of examples that was measured."]),
        (
            [0.5, 0.6, 0.79],
            [
                "The learner is ahead of all others with 1 and 5 examples per class.",
                "From 20 examples per class on ridge is as good.",
            ],
        ),
        (
            [0.5, 0.7, 0.9],
            [
                "The learner is ahead of all others with 1 example per class.",
                "From 5 examples per class on ridge is as good, and from 20 on better.",
            ],
        ),
        (
            [0.6, 0.7, 0.7],
            [
                "The learner is ahead of all others with 20 examples per class.",
                "Up to 5 examples per class ridge is as good.",
            ],
        ),
        (
            [0.7, 0.6, 0.7],
            [
                "The learner is ahead of all others with 5 and 20 examples per class.",
                "With 1 example per class ridge is better.",
            ],
        ),
        (
            [0.7, 0.8, 0.9],
            [
                "At no number of examples is the learner ahead of all others.",
                "At every number of examples ridge is better.",
            ],
        ),
    ],
)
def test_it_says_where_lines_cross(values: list[float], said: list[str]) -> None:
    assert curve.sentences(result({"ridge": values})) == said


def test_the_table_leaves_empty_what_was_not_measured() -> None:
    found = result({"ridge": [0.5, 0.6, 0.7]})
    found["methods"][1]["by_shots"][2] |= {"score": None, "learner_better_by": None}
    assert curve.cells(found)[1] == ["ridge", "50.0 ± 2.0", "60.0 ± 2.0", ""]
    assert curve.sentences(found) == ["The learner is ahead of all others with 1 and 5 examples per class."]


def test_the_figure_names_every_line_without_overlap() -> None:
    text_of = pytest.importorskip("matplotlib.text").Text
    names = [f"method {place}" for place in range(5)]
    drawn = curve.figure(result({name: [0.5, 0.6, 0.7] for name in names}), "title", "subtitle")
    drawn.canvas.draw()
    boxes = [text_of.get_window_extent(text) for text in drawn.axes[0].texts]
    assert {text.get_text() for text in drawn.axes[0].texts} == {"learner", *names}
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    assert all(box.x1 <= drawn.bbox.x1 for box in boxes)


def test_the_matrix_says_which_run_is_best_on_what() -> None:
    pytest.importorskip("matplotlib")

    def row(name: str, mean: float, ahead: float | None) -> dict[str, Any]:
        return {
            "name": name,
            "run": ahead is not None,
            "cells": [
                {"score": score(mean), "own": True, "ahead": None if ahead is None else score(ahead), "rival": "ridge"}
            ],
        }

    found = result({}) | {"targets": ["x"], "rows": [row("a", 0.7, 0.1), row("b", 0.6, 0.0), row("ridge", 0.6, None)]}
    assert transfer.sentences(found) == [
        "x: of the runs a is best, 10.0 ± 2.0 better than the best method without learning across tasks."
    ]
    assert transfer.cells(found)[0] == ["a", "70.0 ± 2.0 *"]
    texts = {text.get_text() for text in transfer.figure(found, "title", "subtitle").axes[0].texts}
    assert texts == {"70.0 ± 2.0", "60.0 ± 2.0"}
