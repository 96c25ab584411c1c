"""Metasmoothness of functions whose smoothness is known."""

import math

import pytest
import torch

from rbml.diagnostics.smoothness import metasmoothness
from rbml.tree import Tree


def along(outcome, at: float = 0.0, step: float = 0.1):
    def run(m: Tree):
        f = outcome(m["a"])
        return f.sum(), f

    grads = {"a": torch.tensor(2.0).double()}
    return metasmoothness(run, {"a": torch.tensor(at).double()}, grads, step)


def test_a_straight_line_is_smooth_and_keeps_its_promise() -> None:
    found = along(lambda a: torch.stack([2 * a, 0 * a]))
    assert found.value == pytest.approx(1) and not found.rough and found.advice == ""
    assert found.fell == pytest.approx(found.promised) == pytest.approx(0.2)


def test_a_turn_by_a_right_angle_is_zero_and_a_way_back_minus_one() -> None:
    def corner(a):
        return torch.stack([a.clamp(min=-0.1), (a + 0.1).clamp(max=0)])

    found = along(corner)
    assert found.value == pytest.approx(0, abs=1e-12) and found.rough and "lower learning rate" in found.advice
    assert along(lambda a: (a + 0.1).abs()[None]).value == pytest.approx(-1)


def test_what_diverges_or_does_not_move_is_rough() -> None:
    assert along(lambda a: (a * math.inf)[None]).rough
    assert along(lambda a: torch.zeros(2)).rough
    run = lambda m: (m["a"], m["a"][None])  # noqa: E731
    assert math.isnan(metasmoothness(run, {"a": torch.tensor(0.0)}, {"a": torch.tensor(0.0)}).value)
