"""Tuning a training run: the derivative through it, what it compares, what it writes and how it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import rbml
from rbml import Batch
from rbml.data.targets import CLASSES
from rbml.errors import UsageError
from rbml.models import MLP
from rbml.strategy import Hyper, chain, knots, momentum, sgd
from rbml.training.tune import split, usual_strategy
from rbml.training.tune.runs import Runs, restarted
from rbml.training.tune.search import Descent, online
from rbml.training.tune.tuning import learner_of
from rbml.tree import Tree


def data(count: int = 40) -> Batch:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(count, 4, generator=source)
    return Batch(x, (x[:, 0] + 0.3 * x[:, 1] > 0).long())


def runs(steps: int = 4) -> Runs:
    model = MLP(4, 2, (5,), nn.Tanh)
    strategy = chain(momentum(Hyper(0.5, bounds=(0, 1))), sgd(Hyper(0.2, per="tensor", bounds=(0, None))), knots(3))
    learner = learner_of(model, strategy, CLASSES, steps, False, 1.0).double()
    train, val, _ = (Batch(part.x.double(), part.y) for part in split(data()))
    return Runs(learner, model.double(), train, val, 8)


def moved(phi: Tree, name: str, step: float) -> Tree:
    return phi | {name: phi[name] + step}


def test_the_derivative_of_whole_runs_is_that_of_a_central_difference() -> None:
    those = runs()
    phi = those.phi()
    losses, grads = those.gradient(phi, range(2))
    assert torch.allclose(losses, those.judged(phi, range(2))["loss"], rtol=1e-12)
    for name in phi:
        up, down = (those.judged(moved(phi, name, sign * 1e-5), range(2))["loss"].mean() for sign in (1, -1))
        assert float(grads[name].sum()) == pytest.approx(float((up - down) / 2e-5), rel=1e-5, abs=1e-9)


def test_runs_side_by_side_are_runs_one_by_one_and_differ_by_their_seed() -> None:
    those = runs()
    losses, _ = those.gradient(those.phi(), (4, 7))
    alone = [float(those.gradient(those.phi(), (seed,))[0]) for seed in (4, 7)]
    assert losses.tolist() == pytest.approx(alone, rel=1e-12)
    assert alone[0] != alone[1]


def test_a_model_is_drawn_anew_and_the_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    model, before = MLP(4, 2, (5,)), torch.get_rng_state()
    one, again, other = (restarted(model, seed).head.weight for seed in (1, 1, 2))  # type: ignore[union-attr]
    assert torch.equal(one, again) and not torch.equal(one, other)  # type: ignore[arg-type]
    assert torch.equal(before, torch.get_rng_state())


def test_the_window_that_moves_along_a_run_takes_the_steps_of_that_run() -> None:
    those = runs()
    still = Descent(those.phi(), lr=0.0)
    changes = list(online(those, still, seed=5, steps=2))
    assert [change.finite for change in changes] == [True] * 2
    assert changes[-1].loss == pytest.approx(float(those.judged(those.phi(), [5])["loss"]), rel=1e-12)


def test_a_gradient_that_is_not_finite_changes_nothing_and_makes_later_changes_smaller() -> None:
    descent = Descent({"phi.a": torch.ones(2)}, lr=0.5)
    change = descent.change(torch.tensor(1.0), {"phi.a": torch.tensor([float("nan"), 1.0])})
    assert not change.finite and torch.equal(change.phi["phi.a"], torch.ones(2)) and descent.slower == 0.5
    assert descent.change(torch.tensor(1.0), {"phi.a": torch.ones(2)}).finite


def clock(each: float = 1.0) -> Callable[[], float]:
    """Return a clock that moves by a fixed time whenever it is read."""
    now = [0.0]

    def read() -> float:
        now[0] += each
        return now[0]

    return read


def test_it_goes_on_where_it_was_interrupted_and_the_third_part_is_never_trained_on(tmp_path: Path) -> None:
    state, model = tmp_path / "state", MLP(4, 2, (5,), nn.Tanh)
    options = {"how": "whole", "steps": 4, "starts": 2, "compile": False, "state": state, "clock": clock()}
    torch.manual_seed(0)
    first = rbml.tune(model, data(), seconds=40, asked=lambda: True, **options)  # type: ignore[arg-type]
    assert first.stopped and len(first.history) == 2
    more = rbml.tune(model, data(), seconds=20, **options)  # type: ignore[arg-type]
    assert not more.stopped and len(more.history) > 2
    assert all(torch.equal(more.history[0].phi[name], leaf) for name, leaf in first.history[0].phi.items())
    assert more.sizes == (24, 8, 8) and sum(part.size for part in split(data())) == 40
    assert set(more.test) == {"loss", "accuracy"} and more.test.keys() == more.usual.keys()
    assert more.candidates[0].loss == min(one.loss for one in more.candidates)


def test_what_cannot_be_tuned_is_refused() -> None:
    model = MLP(4, 2, (5,))
    with pytest.raises(UsageError, match="10 examples are too few to tune on: at least 15"):
        rbml.tune(model, data(10))
    with pytest.raises(UsageError, match="nothing in this strategy is learned"):
        rbml.tune(model, data(), sgd(0.1), compile=False)
    with pytest.raises(UsageError, match="40 inputs and 39 targets"):
        rbml.tune(model, (data().x, data().y[:39]))


def test_the_usual_strategy_has_more_than_50_numbers_for_three_layers() -> None:
    learner = learner_of(MLP(4, 3, (8, 8)), usual_strategy(True), CLASSES, 5, False, 1.0)
    assert sum(leaf.numel() for leaf in learner.phi.parameters()) > 50
