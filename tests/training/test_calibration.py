"""Temperature, calibration error and AUROC, each against its definition."""

from __future__ import annotations

import pytest
import torch

from rbml.tasks import generator
from rbml.training.calibration import auroc, calibration_error, temperature
from rbml.training.unknown import Usual, grown, student


def test_the_temperature_of_sampled_labels_is_found() -> None:
    logits = 3 * torch.randn(4000, 5, generator=generator(0), dtype=torch.float64)
    y = torch.distributions.Categorical(logits=logits / 2.5).sample()
    assert temperature(logits, y) == pytest.approx(2.5, rel=0.1)
    assert calibration_error(logits / 2.5, y) < 0.03 < calibration_error(logits, y)


def test_few_examples_hardly_move_the_usual_temperature() -> None:
    logits, y = torch.tensor([[9.0, 0.0], [0.0, 9.0]]), torch.tensor([1, 1])
    assert 2 < temperature(logits, y, usual=2.0, spread=0.1) < 2.3 < temperature(logits, y, usual=2.0)


def test_the_area_under_the_curve_counts_pairs() -> None:
    known, unknown = (
        torch.randn(30, generator=generator(1)).round(),
        torch.randn(20, generator=generator(2)).round() - 1,
    )
    pairs = [(a > b) + 0.5 * (a == b) for a in known.tolist() for b in unknown.tolist()]
    assert auroc(known, unknown) == pytest.approx(sum(pairs) / 600)


def test_the_threshold_lets_through_as_many_as_asked_for() -> None:
    source, misses = generator(3), 0
    for _ in range(400):
        scores = torch.randn(9, generator=source, dtype=torch.float64)
        usual = Usual.of(scores[:8])
        assert usual is not None
        misses += int(scores[8] > usual.threshold(0.1))
    assert misses / 400 == pytest.approx(0.1, abs=0.05)
    assert Usual.of(torch.zeros(1)) is None and Usual.of(torch.zeros(0), Usual(1.0, 2.0, 50)) == Usual(1.0, 2.0, 50)


def test_quantiles_are_those_of_the_tables() -> None:
    for freedom, truth in ((4, 2.132), (9, 1.833), (30, 1.697)):
        assert student(0.95, freedom) == pytest.approx(truth, abs=0.02)


def test_the_correction_for_one_example_fewer_is_that_of_squared_distances() -> None:
    source = generator(4)
    x = torch.randn(20000, 4, 3, generator=source, dtype=torch.float64)
    with_two = ((x[:, 0] - x[:, 1:3].mean(1)) ** 2).sum(1).mean()
    with_three = ((x[:, 0] - x[:, 1:].mean(1)) ** 2).sum(1).mean()
    assert grown(torch.tensor([3])).exp().item() == pytest.approx((with_three / with_two).item(), rel=0.03)
