"""Heads for real values against NumPy, by the formulas of their papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy import Features, bayesian_linear, chain, ridge, sgd
from rbml.tree import Tree


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def phi(plan: object, theta: Tree) -> Tree:
    learned, fixed = plan.initial(theta, 1, None)  # type: ignore[attr-defined]
    return learned | fixed


def test_ridge_for_real_values_has_an_intercept_that_is_not_shrunk() -> None:
    x, y = noise(6, 3), 30 + 5 * noise(6, 2, seed=1)
    plan = chain(ridge(strength=0.7, scale=0.5, shift=2.0), sgd(0.1))
    weight, bias = plan.head({}, phi(plan, {"head.weight": x}), Features(x, y, 2))
    a, b = x.numpy(), y.numpy()
    centred = a - a.mean(0)
    coefficients = np.linalg.solve(centred.T @ centred + 0.7 * np.eye(3), centred.T @ (b - b.mean(0)))
    expected = b.mean(0) + 0.5 * (a - a.mean(0)) @ coefficients + 2.0
    assert np.allclose((x @ weight.T + bias).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("n", [3, 9])
def test_ridge_is_the_same_from_the_side_of_examples_and_of_features(n: int) -> None:
    x, y = noise(n, 5), torch.arange(n) % 3
    plan = chain(ridge(strength=0.7), sgd(0.1))
    weight, _ = plan.head({}, phi(plan, {"head.weight": x}), Features(x, y, 3))
    truth = np.linalg.solve(x.T.numpy() @ x.numpy() + 0.7 * np.eye(5), x.T.numpy() @ np.eye(3)[y.numpy()])
    assert np.allclose(weight.T.numpy(), truth, rtol=1e-10)


def test_ridge_of_one_recording_and_ridge_in_other_units() -> None:
    plan = chain(ridge(strength=0.7), sgd(0.1))
    own = phi(plan, {"head.weight": noise(1, 3)})
    weight, bias = plan.head({}, own, Features(noise(1, 3), torch.full((1,), 30.0, dtype=torch.float64), 1))
    assert torch.equal(weight, torch.zeros(1, 3).double()) and float(bias) == 30
    x, y = noise(6, 3), noise(6, 1, seed=1)
    (weight, bias), (other, moved) = (plan.head({}, own, Features(x, each, 1)) for each in (y, 1000 * y + 7))
    assert torch.allclose(1000 * weight, other) and torch.allclose(1000 * bias + 7, moved)


def test_targets_of_another_shape() -> None:
    plan = chain(ridge(), sgd(0.1))
    with pytest.raises(UsageError, match=r"ridge needs real targets \(n, 2\), one per output, not \(6, 1\)"):
        plan.head({}, phi(plan, {"head.weight": noise(2, 3)}), Features(noise(6, 3), noise(6, 1), 2))


def prior(d: int = 2, h: int = 3) -> Tree:
    return {
        "bayesian_linear.prior/mean": noise(d, h + 1, seed=2),
        "bayesian_linear.prior/factor": 0.5 * noise(h + 1, h + 1, seed=3),
        "bayesian_linear.prior/noise": noise(d, seed=4),
    }


@pytest.mark.parametrize("n", [1, 6])
def test_the_bayesian_head_is_the_posterior(n: int) -> None:
    """Against conditioning of the joint normal distribution of support and query targets: no inverse of Lambda_n."""
    d, h = 2, 3
    x, y, query = noise(n, h), noise(n, d, seed=1), noise(4, h, seed=5)
    weight, bias = chain(bayesian_linear(), sgd(0.1)).head({}, prior(), Features(x, y, 2 * d + h + 1))
    rows = query @ weight.T + bias
    own = {key.rpartition("/")[2]: leaf.numpy() for key, leaf in prior().items()}
    lower = np.tril(own["factor"], -1) + np.diag(np.exp(np.diag(own["factor"])))
    covariance = np.linalg.inv(lower @ lower.T)
    z, q = (np.concatenate([each.numpy(), np.ones((len(each), 1))], 1) for each in (x, query))
    among, across = z @ covariance @ z.T + np.eye(n), q @ covariance @ z.T
    gain = across @ np.linalg.inv(among)
    mean = q @ own["mean"].T + gain @ (y.numpy() - z @ own["mean"].T)
    variance = np.diag(q @ covariance @ q.T - gain @ across.T) + 1
    assert np.allclose(rows[:, :d].numpy(), mean, rtol=1e-10)
    assert np.allclose(rows[:, d : 2 * d].numpy(), np.broadcast_to(own["noise"], (4, d)), rtol=1e-12)
    assert np.allclose(1 + (rows[:, 2 * d :] ** 2).sum(1).numpy(), variance, rtol=1e-10)


def test_where_the_prior_starts() -> None:
    plan = chain(bayesian_linear(noise=2.0, precision=0.25, offset=30.0), sgd(0.1))
    theta = {"head.rows.weight": noise(2 * 2 + 3 + 1, 3), "head.rows.bias": noise(8)}
    learned, fixed = plan.initial(theta, 1, None)
    assert list(fixed) == ["sgd.lr"] and all(key.startswith("bayesian_linear.prior/") for key in learned)
    assert learned["bayesian_linear.prior/mean"].tolist() == [[0, 0, 0, 30], [0, 0, 0, 30]]
    weight, bias = plan.head(theta, learned, Features(noise(1, 3), 30 + 0 * noise(1, 2), 8))
    mean, level = bias[:2], bias[2:4].exp()
    assert torch.allclose(mean, torch.full((2,), 30.0).double()) and torch.allclose(level, torch.tensor(4.0).double())
    assert torch.allclose(weight[:4], torch.zeros(4, 3).double())


def test_what_the_bayesian_head_refuses() -> None:
    head = chain(bayesian_linear(), sgd(0.1)).head
    with pytest.raises(UsageError, match=r"is for real values, but the targets are torch\.int64"):
        head({}, prior(), Features(noise(6, 3), torch.zeros(6, dtype=torch.int64), 8))
    with pytest.raises(UsageError, match=r"BayesianLinear\(3, 2\) with 8 rows, but the head has 2"):
        head({}, prior(), Features(noise(6, 3), noise(6, 2), 2))
    with pytest.raises(UsageError, match="above zero"):
        bayesian_linear(noise=0.0)
