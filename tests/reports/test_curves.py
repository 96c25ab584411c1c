from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rbml.data.targets import REAL
from rbml.data.targets.classes import ACCURACY
from rbml.errors import CheckpointError
from rbml.reports import learning_curve
from rbml.reports.curves import best_validation, smooth
from rbml.training import RunFolder


def line(axes: Any, label: str) -> tuple[list[float], list[float]]:
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


def test_the_curves_are_those_of_the_journal(trained: RunFolder) -> None:
    entries = list(trained.lines())
    accuracy, loss, gradient, rate = learning_curve(trained).axes
    assert line(accuracy, "training tasks") == ([1, 2, 3, 4, 5, 6], [entry["accuracy"] for entry in entries])
    assert line(loss, "training tasks")[1] == [entry["loss"] for entry in entries]
    assert line(gradient, "gradient norm")[1] == [entry["grad_norm"] for entry in entries]
    assert line(rate, "outer learning rate")[1] == [entry["outer_lr"] for entry in entries]
    assert line(accuracy, "validation tasks") == ([2, 4, 6], [entries[step]["validation"] for step in (1, 3, 5)])
    assert line(accuracy, "chance: 33.3 %")[1] == [1 / 3, 1 / 3]


def test_the_best_validation_is_the_first_of_equals() -> None:
    entries = [
        {"step": 1},
        {"step": 2, "validation": 0.5},
        {"step": 3, "validation": 0.7},
        {"step": 4, "validation": 0.7},
    ]
    assert best_validation(entries, ACCURACY) == entries[2]
    assert best_validation(entries[:1], ACCURACY) is None
    assert best_validation([*entries, {"step": 5, "validation": float("nan")}], REAL.metrics[0]) == entries[1]


def test_the_best_validation_is_marked(trained: RunFolder) -> None:
    best = best_validation(list(trained.lines()), ACCURACY)
    assert best is not None
    label = f"best: {100 * best['validation']:.1f} % at step {best['step']}"
    assert line(learning_curve(trained).axes[0], label) == ([best["step"]], [best["validation"]])


def test_the_smooth_curve_is_the_moving_mean(trained: RunFolder) -> None:
    raw = [entry["loss"] for entry in trained.lines()]
    _, smoothed = line(learning_curve(trained).axes[1], "training, mean of 3 steps")
    assert smoothed[2] == pytest.approx(sum(raw[1:4]) / 3)
    assert smoothed[0] == pytest.approx(sum(raw[:2]) / 2)


def test_smoothing_keeps_a_constant_and_a_single_value() -> None:
    assert smooth(np.ones(7), 4).tolist() == pytest.approx([1.0] * 7)
    assert smooth(np.array([2.0]), 5).tolist() == [2.0]


def test_the_upper_axis_counts_tasks(trained: RunFolder) -> None:
    accuracy = learning_curve(trained).axes[0]
    (upper,) = accuracy.child_axes
    upper.figure.draw_without_rendering()
    assert upper.get_xlim() == pytest.approx([2 * end for end in accuracy.get_xlim()])


def test_a_stopped_run_is_drawn_up_to_where_it_came(plain: RunFolder) -> None:
    figure = learning_curve(plain)
    assert line(figure.axes[0], "training tasks")[0] == [1]
    assert any("up to step 1 of 6" in text.get_text() for text in figure.artists)


def test_a_run_without_a_journal_says_how_to_go_on(copy: RunFolder) -> None:
    copy.journal.unlink()
    with pytest.raises(CheckpointError, match=f"no journal yet: go on with rbml train --resume {copy.path}"):
        learning_curve(copy)


def test_a_damaged_journal_is_named(copy: RunFolder) -> None:
    copy.journal.write_text('{"step": 1\n')
    with pytest.raises(CheckpointError, match=r"journal\.jsonl is damaged"):
        learning_curve(copy)
