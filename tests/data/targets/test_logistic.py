"""Logistic regression, beside scikit-learn and central facts about it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rbml.data.targets.logistic import logistic_regression
from rbml.tasks import generator

WAYS = 4


def problem(n: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    source = generator(n, d)
    y = torch.arange(n) % WAYS
    centres = torch.randn(WAYS, d, generator=source, dtype=torch.float64)
    x = centres[y] + torch.randn(n, d, generator=source, dtype=torch.float64)
    return x, y, torch.randn(7, d, generator=source, dtype=torch.float64)


def one_hot(y: Tensor) -> Tensor:
    return y[:, None] == torch.arange(WAYS)


@pytest.mark.parametrize(("n", "d"), [(20, 300), (60, 10), (4, 30)], ids=str)
@pytest.mark.parametrize("strength", [0.001, 0.1])
def test_it_finds_what_scikit_learn_finds(n: int, d: int, strength: float) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, y, queries = problem(n, d)
    scale = (x - x.mean(0)).square().sum(1).mean().sqrt()
    peer = linear.LogisticRegression(C=1 / (strength * n), tol=1e-9, max_iter=10_000)
    peer.fit(((x - x.mean(0)) / scale).numpy(), y.numpy())
    truth = torch.from_numpy(peer.decision_function(((queries - x.mean(0)) / scale).numpy()))
    found = logistic_regression(x, one_hot(y), queries, strength)
    # Softmax does not see what all classes share.
    torch.testing.assert_close(
        found - found.mean(1, keepdim=True), truth - truth.mean(1, keepdim=True), atol=2e-3, rtol=0
    )


def test_units_do_not_matter_and_rows_without_a_class_do_not_count() -> None:
    x, y, queries = problem(20, 5)
    found = logistic_regression(x, one_hot(y), queries)
    torch.testing.assert_close(logistic_regression(100 * x - 7, one_hot(y), 100 * queries - 7), found)
    padded = torch.cat([x, torch.zeros(3, 5, dtype=x.dtype)])
    members = torch.cat([one_hot(y), torch.zeros(3, WAYS, dtype=torch.bool)])
    torch.testing.assert_close(logistic_regression(padded, members, queries), found)


def test_examples_that_are_all_the_same_give_no_reason_to_choose() -> None:
    x = torch.ones(8, 3, dtype=torch.float64)
    found = logistic_regression(x, one_hot(torch.arange(8) % WAYS), x[:2])
    torch.testing.assert_close(found, torch.zeros(2, WAYS, dtype=torch.float64))
