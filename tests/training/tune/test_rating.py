"""Rating examples: the derivative by their weights, the halves, the model of wrong labels, and what is found."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import rbml
from rbml.errors import UsageError
from rbml.training.tune import RateProgress, rating
from rbml.training.tune.label_noise import LabelNoise
from rbml.training.tune.rating import _checked, gradient, halved, judged, learner_of


def blobs(count: int = 60, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return classes of points around centres that are well apart."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    centres = 3 * torch.randn(classes, 5, generator=source)
    return centres[y] + torch.randn(count, 5, generator=source), y


def wrong(y: Tensor, every: int = 7) -> Tensor:
    """Return labels of which every seventh is another class."""
    moved = y.clone()
    moved[::every] = (y[::every] + 1) % (int(y.max()) + 1)
    return moved


@pytest.mark.parametrize("room", [10**9, 0], ids=["unrolled", "adjoint"])
def test_the_derivative_by_the_weights_is_that_of_a_central_difference(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rating, "ROOM", room)
    x, y = _checked((blobs(13)[0].double(), wrong(blobs(13)[1])))
    halves = halved(x, y, 2, 0)
    learner = learner_of(halves, y, 6, 0.8)
    (name,) = (f"phi.{name}" for name, _ in learner.phi.named_parameters())
    source = torch.Generator().manual_seed(1)
    raw = torch.randn(13, generator=source, dtype=torch.float64)
    trust = torch.rand(13, generator=source, dtype=torch.float64)
    _, grads = gradient(learner, {name: raw}, halves, trust)
    for place in range(13):
        step = torch.zeros_like(raw)
        step[place] = 1e-5
        up, down = (gradient(learner, {name: raw + sign * step}, halves, trust)[0] for sign in (1, -1))
        assert float(grads[name][place]) == pytest.approx(float((up - down) / 2e-5), rel=1e-5, abs=1e-10)


def test_models_side_by_side_take_the_steps_of_gradient_descent_on_their_own_half() -> None:
    x, y = _checked((blobs(13)[0].double(), blobs(13)[1]))
    halves = halved(x, y, 1, 0)
    learner = learner_of(halves, y, 3, 0.8)
    (name,) = (f"phi.{name}" for name, _ in learner.phi.named_parameters())
    raw = torch.linspace(-1, 1, 13, dtype=torch.float64)
    found = judged(learner, {name: raw}, halves, y)
    own = halves.places[1][halves.counts[1]]  # what the second model judges is what the first one learned from
    w, inputs = torch.zeros(6, 3, dtype=torch.float64), torch.cat([x, torch.ones(13, 1)], 1)
    speed = torch.zeros_like(w)
    for _ in range(3):
        # The mean is over both halves together: of 13 examples, half is 6.5.
        difference = (inputs[own] @ w).softmax(1) - torch.nn.functional.one_hot(y[own], 3)
        speed = 0.9 * speed + inputs[own].T @ (raw[own].sigmoid()[:, None] * difference) / 6.5 + 1e-3 / 0.8 * w
        w = w - 0.8 * speed
    judged_by_it = halves.places[0][halves.counts[0]]
    assert torch.allclose(found[judged_by_it], (inputs[judged_by_it] @ w).softmax(1), rtol=1e-9)


def test_every_example_is_judged_once_per_halving_and_classes_are_shared_out() -> None:
    x, y = blobs(31)
    halves = halved(x, y, 2, 3)
    for pair in (0, 2):
        seen = torch.cat([halves.places[pair + one][halves.counts[pair + one]] for one in (0, 1)])
        assert sorted(seen.tolist()) == list(range(31))
        sizes = [torch.bincount(y[halves.places[pair + one][halves.counts[pair + one]]]) for one in (0, 1)]
        assert int((sizes[0] - sizes[1]).abs().max()) <= 1
    assert not torch.equal(halves.places[0], halves.places[2])


def test_wrong_labels_are_found_and_the_right_ones_suggested() -> None:
    x, y = blobs(90)
    labels, states = wrong(y), list[RateProgress]()
    found = rbml.rate((x, labels), halvings=2, steps=15, changes=6, watch=states.append)
    assert torch.equal(found.wrong, labels != y) and torch.equal(found.suggested, y)
    assert (labels != y)[found.order()[: int((labels != y).sum())]].all()
    assert found.weight[labels != y].max() < 0.5 < found.weight[labels == y].mean()
    assert found.noise.rate == pytest.approx(13 / 90, abs=0.03)
    assert [one.done for one in states] == list(range(1, 7)) and not found.stopped


def test_the_same_seed_gives_the_same_and_an_interrupt_keeps_what_was_found() -> None:
    x, y = blobs(30)
    one, again = (rbml.rate((x, wrong(y)), halvings=1, steps=5, changes=2, seed=4) for _ in range(2))
    assert torch.equal(one.weight, again.weight) and torch.equal(one.right, again.right)
    early = rbml.rate((x, wrong(y)), halvings=1, steps=5, changes=9, asked=lambda: True)
    assert early.stopped and early.changes == 1 and torch.isfinite(early.right).all()


def test_the_share_of_wrong_labels_is_recovered_from_exact_probabilities() -> None:
    source = torch.Generator().manual_seed(0)
    q = (4 * torch.randn(4000, 4, generator=source, dtype=torch.float64)).softmax(1)
    true = torch.multinomial(q, 1, generator=source)[:, 0]
    other = (true + torch.randint(1, 4, (4000,), generator=source)) % 4
    labels = torch.where(torch.rand(4000, generator=source) < 0.25, other, true)
    timid = (q.log() / 2).softmax(1)
    noise = LabelNoise.fitted(timid, labels)
    assert noise.rate == pytest.approx(0.25, abs=0.03) and noise.sharpness == pytest.approx(2.0, rel=0.1)
    right = noise.right(timid, labels)
    assert float(right.mean()) == pytest.approx(1 - noise.rate, abs=0.02)
    certain = right > 0.9
    assert float((labels == true)[certain].double().mean()) == pytest.approx(float(right[certain].mean()), abs=0.02)


def test_what_cannot_be_rated_is_refused() -> None:
    x, y = blobs(30)
    with pytest.raises(UsageError, match="judges classes"):
        rbml.rate((x, y.float()))
    with pytest.raises(UsageError, match="only one class"):
        rbml.rate((x, torch.zeros_like(y)))
    with pytest.raises(UsageError, match="class 3 has fewer than 4 examples"):
        rbml.rate((x, torch.where(torch.arange(30) < 3, 3, y)))
    with pytest.raises(UsageError, match="30 inputs and 29 targets"):
        rbml.rate((x, y[:29]))
    with pytest.raises(UsageError, match="not 0, 50 and 30"):
        rbml.rate((x, y), halvings=0)


def test_errors_that_depend_on_the_class_are_told_from_random_ones() -> None:
    source = torch.Generator().manual_seed(0)
    true = torch.randint(0, 4, (800,), generator=source)
    sharp = torch.full((800, 4), 0.02).scatter(1, true[:, None], 0.94)
    drawn = torch.rand(800, generator=source) < 0.4
    taken = torch.where(drawn & (true == 1), 2, true)  # two fifths of class 1 are labelled 2
    noise = LabelNoise.fitted(sharp, taken)
    ((one, other, share),) = noise.confused()
    assert (one, other) == (1, 2) and share == pytest.approx(0.4, abs=0.08)
    called = noise.right(sharp, taken) < 0.5
    assert torch.equal(called, taken != true)
    assert noise.rate == pytest.approx(0.1, abs=0.03)

    at_random = (true + drawn * torch.randint(1, 4, (800,), generator=source)) % 4
    noise = LabelNoise.fitted(sharp, at_random)
    assert noise.pairs is None and noise.confused() == [] and noise.rate == pytest.approx(0.4, abs=0.05)
    assert LabelNoise.fitted(sharp, true).rate < 0.01
