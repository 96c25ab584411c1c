from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, func

from rbml.data.batch import Batch
from rbml.data.targets import ALL, REAL
from rbml.data.targets.real import STRENGTHS, coverage, loss, ridge
from rbml.errors import DataError, UsageError


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def padded(batch: Batch, more: int) -> Batch:
    """Return the batch with rows of NaN at its end that do not count."""
    x, y = (torch.cat([leaf, torch.full((more, *leaf.shape[1:]), torch.nan).to(leaf)]) for leaf in batch[:2])
    return Batch(x, y, {"example": torch.arange(len(y)) < len(batch.y)})


def test_the_loss_is_a_squared_error_or_a_likelihood() -> None:
    y, mean, log_variance = noise(5, 2), noise(5, 2, seed=1), noise(5, 2, seed=2)
    assert torch.allclose(loss(mean, y), torch.nn.functional.mse_loss(mean, y))
    normal = torch.distributions.Normal(mean, torch.exp(0.5 * log_variance))
    assert torch.allclose(loss(torch.cat([mean, log_variance], 1), y), -normal.log_prob(y).mean())


@pytest.mark.parametrize(("prediction", "y"), [((5, 1), (5,)), ((5,), (5, 1)), ((5, 3), (5, 1)), ((4, 1), (5, 1))])
def test_shapes_that_would_broadcast_are_refused(prediction: tuple[int, ...], y: tuple[int, ...]) -> None:
    for call in (lambda a, b: loss(a, b), lambda a, b: REAL.check(a, Batch(b, b))):
        with pytest.raises(UsageError, match="need a prediction of the same shape"):
            call(torch.zeros(prediction), torch.zeros(y))
    with pytest.raises(UsageError, match=r"use y\.float\(\)"):
        REAL.check(torch.zeros(5, 1), Batch(torch.zeros(5, 1), torch.zeros(5, 1, dtype=torch.int64)))


def test_the_metrics_are_what_they_are_called() -> None:
    y, prediction = noise(7, 2), noise(7, 2) + 0.3 * noise(7, 2, seed=1)
    found = {metric.name: float(metric.of(prediction, Batch(y, y))) for metric in REAL.metrics}
    apart, true = (prediction - y).numpy(), y.numpy()
    share = 1 - (apart**2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)
    expected = {"MAE": np.abs(apart).mean(), "RMSE": (apart**2).mean() ** 0.5, "R2": share.mean()}
    assert found == pytest.approx(expected)
    assert [metric.better for metric in REAL.metrics] == ["lower", "lower", "higher"] and ALL["real"] is REAL


def test_the_share_of_a_constant_target() -> None:
    y = torch.full((4, 1), 3.0)
    r2 = REAL.metrics[2].of
    assert float(r2(y, Batch(y, y))) == 1 and float(r2(y + 1, Batch(y, y))) == 0


def test_coverage_counts_what_lies_inside_the_intervals() -> None:
    y = torch.tensor([[0.0], [1.9], [2.1], [-5.0]])
    assert float(coverage(torch.zeros(4, 2), Batch(y, y))) == 0.5
    with pytest.raises(UsageError, match="no intervals"):
        coverage(torch.zeros(4, 1), Batch(y, y))


def test_a_mask_equals_removal() -> None:
    support, query = Batch(noise(6, 3), noise(6, 2, seed=1)), Batch(noise(4, 3, seed=2), noise(4, 2, seed=3))
    prediction = noise(4, 4, seed=4)
    whole, longer = padded(query, 3), torch.cat([prediction, torch.full((3, 4), torch.nan)])
    for metric in REAL.metrics:
        assert torch.allclose(metric.of(longer, whole), metric.of(prediction, query), rtol=1e-12)
    for baseline in REAL.baselines.values():
        assert torch.allclose(baseline(padded(support, 3), query), baseline(support, query), rtol=1e-12)


@pytest.mark.parametrize("name", sorted(REAL.baselines))
def test_baselines_run_vectorised_over_tasks(name: str) -> None:
    support, query = Batch(noise(3, 6, 2), noise(3, 6, 1, seed=1)), Batch(noise(3, 4, 2, seed=2), noise(3, 4, 1))
    stacked = func.vmap(REAL.baselines[name])(support, query)
    for task in range(3):
        one = [Batch(batch.x[task], batch.y[task]) for batch in (support, query)]
        assert torch.allclose(stacked[task], REAL.baselines[name](*one), rtol=1e-10)


def test_ridge_takes_the_strength_that_leave_one_out_prefers() -> None:
    x, query = noise(8, 3).numpy(), noise(4, 3, seed=2).numpy()
    y = x[:, :1] + 0.8 * noise(8, 1, seed=1).numpy()

    def fitted(x: np.ndarray, y: np.ndarray, at: np.ndarray, strength: float) -> np.ndarray:
        centred = x - x.mean(0)
        weight = np.linalg.solve(centred.T @ centred + strength * np.eye(3), centred.T @ (y - y.mean()))
        return np.asarray((at - x.mean(0)) @ weight + y.mean())

    # The short cut keeps the mean of all inputs: with an unpenalised intercept this is exact.
    errors = [
        sum((y[i] - fitted(np.delete(x, i, 0), np.delete(y, i, 0), x[i : i + 1], s)) ** 2 for i in range(8)).item()
        for s in STRENGTHS
    ]
    best = STRENGTHS[int(np.argmin(errors))]
    assert STRENGTHS[0] < best < STRENGTHS[-1]
    found = ridge(*(Batch(torch.from_numpy(a), torch.from_numpy(b)) for a, b in ((x, y), (query, query[:, :1]))))
    assert np.allclose(found.numpy(), fitted(x, y, query, best))


def test_ridge_of_one_example_is_its_target() -> None:
    found = ridge(Batch(noise(1, 3), torch.full((1, 1), 7.0).double()), Batch(noise(4, 3, seed=1), noise(4, 1)))
    assert torch.allclose(found, torch.full((4, 1), 7.0).double())


def test_targets_are_read_and_given_back() -> None:
    y, names = REAL.read(["1.5", 2], None)
    assert y.tolist() == [[1.5], [2.0]] and names == ["value"] and y.dtype == torch.float32
    assert REAL.decode(y, names) == [{"value": 1.5}, {"value": 2.0}]
    y, names = REAL.read([(1, 2), [3, 4]], ["motor", "total"])
    assert REAL.decode(y, names)[1] == {"motor value": 3.0, "total value": 4.0}
    (record,) = REAL.decode(torch.tensor([[2.0, math.log(4.0)]]), ["score"])
    assert record == pytest.approx({"value": 2, "low": 2 - 2 * 1.959964, "high": 2 + 2 * 1.959964})


def test_targets_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="example 2 is 'high': expected a finite number"):
        REAL.read([1, "high"], None)
    with pytest.raises(DataError, match="as many targets"):
        REAL.read([(1, 2), (3,)], None)
    with pytest.raises(UsageError, match="2 targets per example were given for 1 names"):
        REAL.read([(1, 2)], ["a"])
    with pytest.raises(UsageError, match="need 1 or 2 outputs"):
        REAL.decode(torch.zeros(3, 3), ["score"])
