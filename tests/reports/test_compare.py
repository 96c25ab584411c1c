"""Two runs side by side: the tables are what both runs say, and the pictures show the tables' numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rbml.data.targets.classes import ACCURACY
from rbml.errors import CheckpointError
from rbml.reports import compare, phi_table
from rbml.reports.curves import best_validation
from rbml.reports.style import BLUE, RED, png
from rbml.reports.wording import spread
from rbml.training import RunFolder, files


def rows(table: str) -> dict[str, list[str]]:
    lines = [line.strip("| \n").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return {line[0].strip("`"): line[1:] for line in lines[2:]}


def test_only_what_differs_is_in_the_table(trained: RunFolder, with_tensors: RunFolder) -> None:
    found = rows(compare.differences(trained, with_tensors))
    assert found["strategy"][0].startswith(
        "l2(strength 0.001 learned per tensor), momentum(decay 0.5 learned each step)"
    )
    assert found["meta_steps"] == ["6", "4"] and found["outer steps taken"] == ["6", "4"]
    assert found["strategy"][1].startswith("label_smoothing(rate 0.1 learned), kronecker(learned matrices), sgd(lr 0.4")
    assert not {"ways", "seed", "algorithm", "data"} & found.keys()
    best = best_validation(list(trained.lines()), ACCURACY)
    assert best is not None and found["best validation, %"][0] == f"{100 * best['validation']:.1f}"


def test_evaluations_are_in_the_table(copy: RunFolder, with_tensors: RunFolder, evaluation: Any) -> None:
    copy.evaluation("any").parent.mkdir()
    files.write_json(copy.evaluation("glyphs-5w1s"), evaluation())
    text = compare.differences(copy, with_tensors)
    assert "| glyphs-5w1s, transductive, % | 50.0 ± 1.2 |  |" in text


def test_what_both_have_learned_stands_side_by_side(trained: RunFolder, with_tensors: RunFolder) -> None:
    text = compare.phi_beside(trained, with_tensors)
    ours, theirs = ({(row.name, row.layer): row for row in phi_table(run)} for run in (trained, with_tensors))
    key = ("sgd.lr", "head")
    assert (
        f"| `sgd.lr` | head | {spread(ours[key].learned)} | {spread(theirs[key].learned)} | step / gradient |" in text
    )
    assert (
        f"| `momentum.decay` | all layers | {spread(ours['momentum.decay', 'all layers'].learned)} |  | share" in text
    )
    state = files.load(with_tensors.best, "best")["learner"]
    norm = float(state["phi.kronecker.matrices/head.weight/out"].norm())
    assert f"| `kronecker.matrices` | head.weight/out |  | {norm:.3g} |  |" in text


def test_where_neither_has_learned_anything_it_is_said(plain: RunFolder) -> None:
    assert compare.phi_beside(plain, plain) == "Neither run has learned any number of its strategy.\n"
    assert compare.phi_compared(plain, plain) is None


def test_the_picture_shows_the_numbers_of_the_table(trained: RunFolder, with_tensors: RunFolder) -> None:
    figure = compare.phi_compared(trained, with_tensors)
    assert figure is not None and png(figure)
    panels = {axes.get_title(loc="left").split(" (")[0]: axes for axes in figure.axes}
    assert set(panels) == {"l2.strength", "momentum.decay", "sgd.lr", "weight_decay.rate", "label_smoothing.rate",
                           "kronecker.matrices"}  # fmt: skip
    for run, colour in ((trained, BLUE), (with_tensors, RED)):
        means = [row.learned.mean for row in phi_table(run) if row.name == "sgd.lr"]
        dots = [line for line in panels["sgd.lr"].lines if line.get_marker() == "o" and line.get_color() == colour]
        assert [float(torch.as_tensor(dot.get_xdata())[0]) for dot in dots] == pytest.approx(means)
    (line,) = panels["momentum.decay"].lines  # by step
    assert len(line.get_xdata()) == 2


def test_both_curves_are_in_one_plot(trained: RunFolder, plain: RunFolder) -> None:
    figure = compare.curves_compared(trained, plain)
    assert png(figure)
    top, bottom = figure.axes
    assert [len(line.get_xdata()) for line in bottom.lines] == [6, 1]
    assert [line.get_color() for line in bottom.lines] == [BLUE, RED]
    measured = [entry["validation"] for entry in trained.lines() if "validation" in entry]
    assert list(top.lines[1].get_ydata()) == measured


def test_names_are_told_apart(trained: RunFolder, tmp_path: Any) -> None:
    assert compare.names(trained, RunFolder(tmp_path / "b")) == ("everything", "b")
    other = RunFolder(tmp_path / "everything")
    assert compare.names(trained, other) == (str(trained.path), str(other.path))
    with pytest.raises(CheckpointError, match="does not exist"):
        compare.differences(trained, other)
