"""The estimate: every fold leaves out one example of each class, and a plain loop gives the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from rbml import algorithms
from rbml.data.batch import Batch
from rbml.data.targets import CLASSES, REAL
from rbml.models import MLP
from rbml.recipe import Recipe, build
from rbml.tasks import FewShot, Sinusoid
from rbml.training import Score
from rbml.training.estimate import adapting, estimate, exact_p, leave_out, wilson
from rbml.training.folds import folds, passes


def test_a_fold_leaves_out_one_of_each_class() -> None:
    y = torch.arange(15) % 3
    found = folds(y)
    assert len(found) == 5 and all(sorted(y[fold].tolist()) == [0, 1, 2] for fold in found)
    assert sorted(torch.cat(found).tolist()) == list(range(15))


@pytest.mark.parametrize("counts", [[1, 2], [2, 9, 30], [1, 1, 4], [25, 3], [11, 10]])
def test_classes_of_unequal_size_are_never_emptied(counts: list[int]) -> None:
    y = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    y = y[torch.randperm(len(y))]
    found = folds(y)
    assert len(found) <= 10
    assert sorted(torch.cat(found).tolist()) == [at for at in range(len(y)) if counts[y[at]] > 1]
    for fold in found:
        stays = torch.ones(len(y), dtype=torch.bool)
        stays[fold] = False
        assert set(y[stays].tolist()) == set(range(len(counts)))
    assert folds(torch.arange(4)) == []


def test_leaving_out_is_a_plain_loop(recipe: Callable[..., Recipe], tasks: FewShot) -> None:
    ours = build.learner(recipe(steps=2, lr=0.3))
    x, y = tasks.x[:18].float() / 255, torch.arange(18) // 6
    right = []
    for fold in folds(y):
        rest = torch.tensor([at for at in range(18) if at not in fold.tolist()])
        right += (ours.adapt(x[rest], y[rest], ways=3)(x[fold]).argmax(1) == y[fold]).float().tolist()
    done: list[int] = []
    assert leave_out(ours, Batch(x, y), CLASSES, 3, done.append) == Score.of(torch.tensor(right))
    assert done == [3] * 6
    found = estimate(adapting(ours, 3), Batch(x, y), CLASSES, ways=3)
    assert found is not None and found.value == pytest.approx(sum(right) / 18) and found.confusion is not None
    assert (found.low, found.high) == pytest.approx(wilson(sum(right) / 1.5, 18 / 1.5))
    assert found.confusion.sum().item() == 18
    assert found.confusion.diagonal().sum().item() == sum(right) and found.chance == pytest.approx(1 / 3)
    assert leave_out(ours, Batch(x[[0, 6, 12]], torch.arange(3)), CLASSES, 3) is None


def test_few_examples_are_left_out_again_with_others_together() -> None:
    y = torch.arange(10) % 5
    together, calls = set(), []
    for again in range(passes(y)):
        found = folds(y, again=again)
        assert sorted(torch.cat(found).tolist()) == list(range(10)) and len(found) == 2
        assert all(sorted(y[fold].tolist()) == [0, 1, 2, 3, 4] for fold in found)
        together |= {tuple(sorted(fold.tolist())) for fold in found}
    assert len(together) > 6

    def by_the_first(support: Batch, query: Batch) -> torch.Tensor:
        """Return a prediction that is right if the first example of class 0 was learned from."""
        calls.append(len(query.y))
        right = query.y if bool((support.x == 0).any()) else (query.y + 1) % 5
        return torch.nn.functional.one_hot(right, 5).float()

    found = estimate(by_the_first, Batch(torch.arange(10), y), CLASSES, {}, 5)
    assert found is not None and calls == [5] * 10
    assert found.value == 0.5 and found.total == 10 and found.folds == 10 and len(found.left.places) == 10


def test_baselines_are_compared_on_the_same_examples() -> None:
    y = torch.arange(20) % 2
    seen = y[:, None].float() + 0.01 * torch.randn(20, 1)

    def coin(support: Batch, query: Batch) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(query.y), -1)

    found = estimate(coin, Batch(torch.randn(20, 3), y), CLASSES, {"the answer": seen}, 2)
    assert found is not None and found.verdict == "behind"
    best = found.rivals[0]
    assert best.name.endswith("on the answer") and best.value == 1 and best.ahead
    assert best.p == pytest.approx(2 / 2**10)  # ten examples on which only the baseline is right
    assert [rival.value for rival in found.rivals] == sorted((rival.value for rival in found.rivals), reverse=True)


def test_one_example_more_per_class_shifts_the_estimate_in_logits() -> None:
    y = torch.arange(10) % 2

    def half(support: Batch, query: Batch) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(query.y), -1)

    found = estimate(half, Batch(torch.randn(10, 3), y), CLASSES, {}, 2)
    assert found is not None and found.value == 0.5 and not found.corrected
    better = found.with_gain(0.5, 0.8, 1e-6)
    assert better.value == pytest.approx(0.8, abs=1e-4) and better.measured == 0.5 and better.corrected
    assert found.low < better.low < 0.8 < better.high < 1
    less, chance = found.with_gain(0.5, 0.8, 0.05), found.with_gain(0.5, 0.8, 0.4)
    gain, error = math.log(0.8 / 0.2), 0.05 / (0.65 * 0.35)
    assert less.value == pytest.approx(1 / (1 + math.exp(-(gain - error**2 / gain))))
    assert chance.value == pytest.approx(0.5) and not chance.corrected
    assert found.with_gain(0.8, 0.5, 1e-6).value == pytest.approx(0.5)  # examples do no harm


def test_the_sign_test_is_that_of_a_fair_coin() -> None:
    for wins, losses in ((0, 0), (5, 5), (8, 1), (0, 6), (12, 4)):
        total, fewer = wins + losses, min(wins, losses)
        outcomes = [bin(one).count("1") for one in range(2**total)] if total < 17 else []
        share = sum(min(ones, total - ones) <= fewer for ones in outcomes) / 2**total
        assert exact_p(wins, losses) == pytest.approx(min(1.0, share))


def test_real_values_are_left_out_one_by_one() -> None:
    task = Sinusoid(shots=4, queries=1).draw([0]).support
    learner = algorithms.maml(MLP(1, 1), loss=REAL.loss)
    x, y = task.x[0], task.y[0]
    errors = []
    for index in range(4):
        others = [other for other in range(4) if other != index]
        errors.append((learner.adapt(x[others], y[others])(x[index : index + 1]) - y[index]).detach().abs().item())
    score = leave_out(learner, Batch(x, y), REAL)
    assert score is not None and score.mean == pytest.approx(sum(errors) / 4, rel=1e-5)
    assert leave_out(learner, Batch(x[:1], y[:1]), REAL) is None
    found = estimate(adapting(learner), Batch(x, y), REAL)
    assert found is not None and found.confusion is None and {one.name for one in found.rivals} >= {"support mean"}
    assert found.low == pytest.approx(max(0.0, score.mean - score.interval), rel=1e-5)
