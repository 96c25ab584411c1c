from __future__ import annotations

from typing import Any

import pytest
import torch

from rbml.recipe import build
from rbml.reports import theta as theta_module
from rbml.reports import theta_figure
from rbml.reports.learned import moves
from rbml.reports.style import png
from rbml.training import RunFolder, files


def test_the_way_of_a_layer_is_what_a_hand_computes(trained: RunFolder) -> None:
    now = files.load(trained.best, "best")["learner"]
    start = build.learner(trained.recipe()).state_dict()
    names = ["model.head.weight", "model.head.bias"]
    was = torch.cat([start[name].flatten() for name in names]).double()
    is_now = torch.cat([now[name].flatten() for name in names]).double()
    assert moves(trained)["head"] == pytest.approx(((is_now - was).norm() / was.norm()).item())
    assert list(moves(trained))[:2] == ["blocks.0.conv", "blocks.0.norm"]


def test_the_dots_are_the_ways(trained: RunFolder) -> None:
    (axes,) = theta_figure(trained).axes
    (dots,) = [each for each in axes.collections if len(each.get_offsets()) > 1]
    assert dots.get_offsets()[:, 0].tolist() == list(moves(trained).values())


def test_a_layer_that_started_at_zero_has_no_relative_change(trained: RunFolder, monkeypatch: Any) -> None:
    monkeypatch.setattr(theta_module, "moves", lambda run: {"a": 0.5, "b": float("inf"), "c": 0.0})
    figure = theta_figure(trained)
    assert [text.get_text() for text in figure.axes[0].texts] == ["50.0 %", "from zero", "0 %"]
    assert png(figure)


def test_a_model_that_did_not_move(trained: RunFolder, monkeypatch: Any) -> None:
    monkeypatch.setattr(theta_module, "moves", lambda run: {"a": 0.0})
    assert png(theta_figure(trained))
