"""Temperature, calibration error and AUROC, each against its definition."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from rbml.tasks import generator
from rbml.training import unknown
from rbml.training.calibration import auroc, calibration_error, temperature
from rbml.training.unknown import Usual, _against_others, grown, student


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


def test_validation_tasks_tell_the_threshold_as_it_is() -> None:
    """Bounded scores that vary from task to task: the normal quantile lies beyond all of them."""
    middles = 0.1 * torch.randn(40, 1, generator=generator(5), dtype=torch.float64)
    scores = [1 - one for one in (torch.rand(40, 25, generator=generator(6), dtype=torch.float64) ** 4 - middles).abs()]
    usual, pooled = Usual.of_tasks(scores), torch.cat(scores)
    for rate in (0.01, 0.05, 0.3):
        assert (pooled > usual.threshold(rate)).double().mean().item() == pytest.approx(rate, abs=2e-3)
    assert replace(usual, shape=()).threshold(0.01) > pooled.max()
    assert usual.std == pytest.approx(torch.stack([one.std() for one in scores]).mean().item(), rel=0.05)
    assert Usual.from_content(json.loads(json.dumps(usual.to_content()))) == usual
    assert Usual.from_content({"mean": 1.0, "std": 2.0, "count": 50}) == Usual(1.0, 2.0, 50), "former files"


def test_left_out_scores_and_validation_tasks_together_let_through_as_many_as_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks differ in their mean and spread; 25 scores of each are left out. Harder tasks have a longer end."""
    source = generator(7)

    def drawn(hard: bool) -> tuple[torch.Tensor, torch.Tensor]:
        middle, spread = torch.randn(2, generator=source, dtype=torch.float64).mul(0.3).exp()
        scores = torch.randn(50, generator=source, dtype=torch.float64)
        if hard:
            scores = -torch.rand(50, generator=source, dtype=torch.float64).log()
        return middle + spread * scores[:25], middle + spread * scores[25:]

    def misses(tasks: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
        limits = [Usual.of(left, usual) for left, _ in tasks]
        found = [further > one.threshold() for (_, further), one in zip(tasks, limits, strict=True) if one is not None]
        return torch.stack(found).double().mean().item()

    validation, same, hard = (
        [drawn(kind) for _ in range(number)] for number, kind in ((100, False), (300, False), (300, True))
    )
    usual = Usual.of_tasks([further for _, further in validation], [left for left, _ in validation])
    assert misses(same) == pytest.approx(0.05, abs=0.01)
    together, former = misses(hard), replace(usual, own=())
    monkeypatch.setattr(unknown, "VALIDATION", 1e9)
    assert 0.05 < together < misses(hard) - 0.005, "validation tasks alone"
    assert usual == Usual.from_content(json.loads(json.dumps(usual.to_content())))
    assert Usual.of_tasks([further for _, further in validation]) == former, "nothing could be left out"


def test_many_scores_of_the_task_itself_tell_its_threshold() -> None:
    own = torch.distributions.StudentT(3.0).sample((4000,)).double()
    found = Usual.of(own, Usual(0.0, 0.1, 1000, 0.1, tuple([0.0] * 101), tuple([0.0] * 101)))
    assert found is not None and found.threshold(0.05) == pytest.approx(own.quantile(0.95).item(), rel=0.05)


def test_a_score_is_compared_with_the_others() -> None:
    scores, usual = torch.tensor([1.0, 4.0, 2.0, 8.0], dtype=torch.float64), 0.7
    for place, found in enumerate(_against_others(scores, usual)):
        others = torch.cat([scores[:place], scores[place + 1 :]])
        variance = ((others - others.mean()).square().sum() + 10 * usual**2) / 12
        assert found.item() == pytest.approx(
            ((scores[place] - others.mean()) / (variance * (1 + 1 / 13)).sqrt()).item()
        )


def test_without_left_out_scores_examples_of_the_task_itself_do_not_change_the_shape() -> None:
    """So it is in former files."""
    shape = tuple(torch.linspace(-3, 1, 101).tolist())
    found = Usual.of(torch.tensor([5.0, 6.0, 7.0]), Usual(0.0, 1.0, 1000, 0.5, shape))
    assert found is not None and (found.mean, found.between, found.shape) == (6.0, 0.0, shape)
    assert found.threshold(0.01) == pytest.approx(6 + 0.96 * found.std * (1 + 1 / 13) ** 0.5, abs=1e-3)


def test_one_task_tells_no_spread_between_tasks() -> None:
    assert Usual.of_tasks([torch.tensor([1.0, 2.0, 4.0])]).between == 0


def test_quantiles_are_those_of_the_tables() -> None:
    for freedom, truth in ((4, 2.132), (9, 1.833), (30, 1.697)):
        assert student(0.95, freedom) == pytest.approx(truth, abs=0.02)


def test_the_correction_for_one_example_fewer_is_that_of_squared_distances() -> None:
    source = generator(4)
    x = torch.randn(20000, 4, 3, generator=source, dtype=torch.float64)
    with_two = ((x[:, 0] - x[:, 1:3].mean(1)) ** 2).sum(1).mean()
    with_three = ((x[:, 0] - x[:, 1:].mean(1)) ** 2).sum(1).mean()
    assert grown(torch.tensor([3])).exp().item() == pytest.approx((with_three / with_two).item(), rel=0.03)
