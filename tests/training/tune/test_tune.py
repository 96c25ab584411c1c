"""Tuning a training run: the derivative through it, what it compares, what it writes and how it goes on."""

from __future__ import annotations

import math
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
from rbml.training.tune.progress import Progress
from rbml.training.tune.runs import Runs, restarted
from rbml.training.tune.scouting import Place, moved, preferred, scouted
from rbml.training.tune.search import Descent, online
from rbml.training.tune.tuning import Candidate, Gain, finished, learner_of
from rbml.training.tune.usual import usual_for
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


def moved_by(phi: Tree, name: str, step: float) -> Tree:
    return phi | {name: phi[name] + step}


def test_the_derivative_of_whole_runs_is_that_of_a_central_difference() -> None:
    those = runs()
    phi = those.phi()
    losses, grads = those.gradient(phi, range(2))
    assert torch.allclose(losses, those.judged(phi, range(2))["loss"], rtol=1e-12)
    for name in phi:
        up, down = (those.judged(moved_by(phi, name, sign * 1e-5), range(2))["loss"].mean() for sign in (1, -1))
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
    change = descent.change(torch.ones(1), {"phi.a": torch.tensor([[float("nan"), 1.0]])})
    assert not change.finite and torch.equal(change.phi["phi.a"], torch.ones(2)) and descent.slower == 0.5
    assert descent.change(torch.ones(1), {"phi.a": torch.ones(1, 2)}).finite


def test_a_run_with_a_huge_gradient_counts_no_more_than_the_others() -> None:
    descent = Descent({"phi.a": torch.zeros(2)}, lr=0.5)
    each = torch.tensor([[3.0, 0.0], [3.0, 0.0], [0.0, -1e6]])
    descent.change(torch.ones(3), {"phi.a": each})
    assert torch.allclose(descent.leaves["phi.a"].grad, torch.tensor([2.0, -1.0]))  # type: ignore[arg-type]


def test_where_the_loss_became_much_worse_phi_goes_back_to_the_best_and_moves_half_as_far() -> None:
    descent, grads = Descent({"phi.a": torch.zeros(1)}, lr=0.5), {"phi.a": torch.ones(2, 1)}
    for loss in (1.0, 0.9, 1.05):  # a little worse is noise
        change = descent.change(torch.full((2,), loss), grads)
        assert change.finite
    change = descent.change(torch.full((2,), 1.2), grads)
    assert not change.finite and float(change.phi["phi.a"]) == pytest.approx(-0.5, abs=1e-6)
    change = descent.change(torch.full((2,), 0.9), grads)
    assert float(change.before["phi.a"] - change.phi["phi.a"]) < 0.26


def test_a_descent_goes_on_from_its_state() -> None:
    one, grads = Descent({"phi.a": torch.zeros(2)}, lr=0.5), {"phi.a": torch.tensor([[1.0, -0.3]])}
    one.change(torch.ones(1), grads)
    one.change(torch.full((1,), 2.0), grads)
    other = Descent({"phi.a": torch.zeros(2)}, lr=0.1)
    other.restore(one.state())
    changes = [each.change(torch.full((1,), 0.8), grads).phi["phi.a"] for each in (one, other)]
    assert torch.equal(*changes) and other.sizes == one.sizes and other.least == one.least


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
    assert first.stopped and [one.changes for one in first.history] == [0, 1, 1], "the start, one change, the end"
    more = rbml.tune(model, data(), seconds=20, **options)  # type: ignore[arg-type]
    assert not more.stopped and len(more.history) > 2
    assert "first place" in [one.name for one in first.candidates]
    assert all(torch.equal(more.history[0].phi[name], leaf) for name, leaf in first.history[0].phi.items())
    assert more.sizes == (24, 8, 8) and sum(part.size for part in split(data())) == 40
    assert set(more.test) == {"loss", "accuracy"} and more.test.keys() == more.usual.keys()
    assert more.candidates[0].loss == min(one.loss for one in more.candidates)


def test_it_begins_at_the_rate_and_the_schedule_that_a_few_runs_find() -> None:
    model = MLP(4, 2, (5,), nn.Tanh)
    low = chain(sgd(Hyper(0.01, per="tensor", bounds=(0, None))), knots(3))
    train, val, _ = split(data())
    those = Runs(learner_of(model, low, CLASSES, 20, False, 1.0), model, train, val, 8)
    place, phi, losses = scouted(those, range(2))
    assert place.rate == 3 and losses[place] < 0.9 * losses[Place(0, False)]
    assert torch.allclose(phi["phi.sgd.lr/head.bias"].exp(), torch.tensor(0.27))
    assert torch.equal(moved(phi, low, Place(0, True))["phi.knots.curve/head.bias"], torch.tensor([0.0, -1.25, -2.5]))
    asked: list[int] = []
    assert len(scouted(those, range(2), lambda: bool(asked.append(1)) or len(asked) > 2)[2]) == 3
    assert scouted(runs(), range(2), lambda: True)[0] == Place(0, False)
    alike = {Place(0, False): 1.0, Place(1, False): 0.9, Place(1, True): 0.95, Place(2, True): 0.94}
    assert preferred(alike) == Place(2, True), "the calmer one of those that are about as good"
    assert preferred(alike | {Place(2, False): 0.8}) == Place(2, False)


def test_a_place_that_diverges_is_not_chosen_and_a_bounded_rate_is_left_alone() -> None:
    model, far = MLP(4, 2, (5,), nn.Tanh), chain(sgd(Hyper(1e38, bounds=(0, None))))
    train, val, _ = split(data())
    those = Runs(learner_of(model, far, CLASSES, 20, False, 1.0), model, train, val, 8)
    _, _, losses = scouted(those, range(1))
    assert math.inf in losses.values()
    bounded = chain(sgd(Hyper(0.1, bounds=(0, 1))))
    those = Runs(learner_of(model, bounded, CLASSES, 2, False, 1.0), model, train, val, 8)
    assert list(scouted(those, range(1))[2]) == [Place(0, False)]


def test_settings_that_diverge_in_the_final_runs_give_way_to_the_next() -> None:
    those = runs(20)
    parts = split(Batch(data().x.double(), data().y))
    usual = those.phi()
    wild, good = ({name: leaf * by if "sgd" in name else leaf for name, leaf in usual.items()} for by in (1e4, 1.2))
    losses = those.judged(usual, range(3))["loss"].tolist()
    candidates = [
        Candidate("last", wild, [0.0]),
        Candidate("least loss", good, [0.1]),
        Candidate("start", usual, losses),
    ]
    history = [Progress(0.0, 0, 1.0, usual)]
    found = finished(those, parts, candidates, history, CLASSES, range(3))
    assert [one.name for one in found.candidates] == ["least loss", "last", "start"]
    found = finished(those, parts, [candidates[0], candidates[2]], history, CLASSES, range(3))
    assert [one.name for one in found.candidates] == ["start", "last"], "the usual settings are always there"


def of_pictures(first: nn.Module) -> Runs:
    """Return runs of a small network on raw pictures, with the usual strategy for it, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(*first.children(), nn.Tanh(), nn.Linear(36, 3))
    whole = Batch(torch.rand(40, 1, 8, 8), torch.arange(40) % 3)
    learner = learner_of(model, usual_for(model, True, whole.x), CLASSES, 4, False, 1.0).double()
    train, val, _ = (Batch(part.x.double(), part.y) for part in split(whole))
    return Runs(learner, model.double(), train, val, 8)


CONV = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, stride=2), nn.Flatten())
FLAT = nn.Sequential(nn.Flatten(), nn.Linear(64, 36))


@pytest.mark.parametrize(("first", "dropped"), [(CONV, ("2", "5")), (FLAT, ("3",))], ids=["conv", "flat"])
def test_the_usual_strategy_drops_hidden_features_and_warps_raw_pictures_and_learns_how_much(
    first: nn.Module, dropped: tuple[str, ...]
) -> None:
    those = of_pictures(first)
    phi = those.phi()
    _, grads = those.gradient(phi, range(2))
    for name in ("phi.warp_pictures.strength", *(f"phi.dropout.rate/{layer}.*" for layer in dropped)):
        up, down = (those.judged(moved_by(phi, name, sign * 1e-6), range(2))["loss"].mean() for sign in (1, -1))
        assert abs(float(grads[name])) > 1e-6
        assert float(grads[name]) == pytest.approx(float((up - down) / 2e-6), rel=1e-5), name


def test_what_a_model_or_its_inputs_do_not_allow_is_left_out_of_the_usual_strategy() -> None:
    flat = usual_for(MLP(4, 3, (8, 8)), False, torch.rand(9, 4))
    assert [part.name for part in flat.parts] == ["dropout", "l2", "momentum", "sgd", "knots"]
    assert flat.gates[0].layers == "body.3|head"
    assert not usual_for(MLP(4, 3, (8, 8)), False, torch.rand(9, 4), seconds=60).gates, "it would be compiled for long"
    single = usual_for(nn.Sequential(nn.Linear(4, 2)), True, torch.rand(9, 4))
    assert not single.gates
    frozen = nn.Sequential(nn.Conv2d(3, 4, 3).requires_grad_(False), nn.Flatten(), nn.Linear(36, 2), nn.Linear(2, 2))
    assert [gate.layers for gate in usual_for(frozen, True, torch.rand(9, 3, 5, 5)).gates] == ["3"]


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


def test_a_gain_counts_what_examples_and_starts_add_to_its_chance() -> None:
    usual = torch.tensor([[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 3.0, 4.0]])
    gain = Gain.of(usual, torch.ones(2, 4))
    over_examples = torch.tensor([1.0, 1.0, 2.0, 3.0]).var() / 4
    over_starts = torch.tensor([1.5, 2.0]).var() / 2
    assert gain.mean == pytest.approx(1.75)
    assert gain.interval == pytest.approx(1.96 * float(over_examples + over_starts) ** 0.5) and gain.clear
    assert not Gain.of(usual, usual + torch.tensor([1.0, -1.0, 1.0, -1.0])).clear
    assert Gain.of(usual[:1], torch.ones(1, 4)).interval == pytest.approx(1.96 * (5 / 3 / 4) ** 0.5), "a single start"
    assert not Gain.of(usual[:, :1], torch.ones(2, 1)).clear, "a single example tells nothing"
