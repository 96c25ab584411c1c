"""The ridge regression that finds its strength: against scikit-learn, and against regressions without each example."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rbml import Batch, Episode, models
from rbml.algorithms import ridge_cv as algorithm
from rbml.hypergrad import Adjoint, Unrolled
from rbml.strategy import Features, Scalar, chain, ridge_cv, sgd
from rbml.tree import norm

Array = np.ndarray
OFFSETS = np.arange(-4, 5) / 2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def head(x: Tensor, y: Tensor, ways: int, mask: Tensor | None = None, **options: float) -> tuple[Array, Array]:
    plan = chain(ridge_cv(**{"strength": 0.1, "scale": 1.0, **options}), sgd(0.1))
    learned, fixed = plan.initial({"head.weight": x}, 1, None)
    weight, bias = plan.head({}, learned | fixed, Features(x, y, ways, mask))
    return weight.numpy(), bias.numpy()


def slowly(x: Array, y: Array, counts: Array, real: bool) -> tuple[Array, Array]:
    """Fit without each example in turn, at each strength, and weigh; strength 0.1 and spread 1."""
    from sklearn.linear_model import Ridge

    size = ((x - x.mean(0)) ** 2).sum() / len(x)
    found, evidence = [], []
    for offset in OFFSETS:
        alpha = 0.1 * 10**offset * size
        errors = [
            y[i] - Ridge(alpha).fit(np.delete(x, i, 0), np.delete(y, i, 0)).predict(x[i : i + 1])[0]
            for i in range(len(x))
            if counts[i]
        ]
        squares = (np.array(errors) ** 2).mean(0)
        evidence.append(-len(errors) / 2 * np.log(squares if real else squares.sum()).sum() - offset**2 / 2)
        full = Ridge(alpha).fit(x, y)
        found.append((full.coef_, full.intercept_))
    weigh = np.exp(np.array(evidence) - max(evidence))
    weigh /= weigh.sum()
    coefficients, intercepts = (sum(w * each[part] for w, each in zip(weigh, found, strict=True)) for part in (0, 1))
    return coefficients, intercepts


@pytest.mark.parametrize("d", [4, 30])
def test_labels_against_leaving_out_each_example_one_after_another(d: int) -> None:
    y = torch.arange(12) % 3
    x = noise(12, d) + 2 * noise(3, d, seed=1)[y]
    weight, bias = slowly(x.numpy(), np.eye(3)[y.numpy()], np.ones(12), real=False)
    own = head(x, y, 3)
    assert np.allclose(own[0], weight, rtol=1e-9, atol=1e-12) and np.allclose(own[1], bias, rtol=1e-9)


@pytest.mark.parametrize("d", [4, 30])
def test_real_targets_against_the_same(d: int) -> None:
    x, y = noise(10, d), noise(10, 2, seed=1) * torch.tensor([1.0, 50.0]).double() + 7
    weight, bias = slowly(x.numpy(), y.numpy(), np.ones(10), real=True)
    own = head(x, y, 2)
    assert np.allclose(own[0], weight, rtol=1e-9, atol=1e-12) and np.allclose(own[1], bias, rtol=1e-9)


def test_the_only_example_of_a_class_does_not_judge() -> None:
    y = torch.tensor([0, 0, 0, 1, 1, 2])
    x = noise(6, 4)
    weight, _ = slowly(x.numpy(), np.eye(3)[y.numpy()], np.array([1, 1, 1, 1, 1, 0]), real=False)
    assert np.allclose(head(x, y, 3)[0], weight, rtol=1e-9)


@pytest.mark.parametrize("d", [3, 30])
def test_rows_that_do_not_count(d: int) -> None:
    x, y, mask = noise(9, d), torch.arange(9) % 3, torch.arange(9) < 7
    some, alone = head(x, y, 3, mask), head(x[:7], y[:7], 3)
    assert all(np.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(some, alone, strict=True))


def test_units_of_features_do_not_matter() -> None:
    x, y = noise(9, 4), torch.arange(9) % 3
    (small, bias), (large, same) = head(x, y, 3), head(1000 * x, y, 3)
    assert np.allclose(small, 1000 * large, rtol=1e-9) and np.allclose(bias, same, rtol=1e-9)


@pytest.mark.parametrize("n", [1, 3])
def test_support_sets_that_say_nothing_have_a_finite_head_and_gradient(n: int) -> None:
    x = torch.ones(n, 5, requires_grad=True)
    plan = chain(ridge_cv(), sgd(0.1))
    learned, fixed = plan.initial({"head.weight": x}, 1, None)
    weight, bias = plan.head({}, learned | fixed, Features(x, torch.arange(n), 3))
    (weight.sum() + bias.sum()).backward()
    assert x.grad is not None and weight.isfinite().all() and x.grad.isfinite().all()


def test_single_precision_is_enough() -> None:
    y = torch.arange(40) % 4
    x = noise(40, 200) + noise(4, 200, seed=1)[y]
    single, double = head(x.float(), y, 4), head(x, y, 4)
    assert np.allclose(single[0], double[0], atol=1e-4 * np.abs(double[0]).max())


def test_what_is_learned_of_it_has_the_right_hypergradient() -> None:
    y = torch.arange(8)[None] % 2
    task = Episode(Batch(noise(1, 8, 5), y), Batch(noise(1, 8, 5, seed=1), y))
    model = models.MLP(5, 2, [6], torch.nn.Tanh).double()
    strengths = {"strength": Scalar(0.1, bounds=(0, None)), "spread": Scalar(1.0, bounds=(0, None))}
    learners = [
        algorithm(model, **strengths, hypergradient=engine, steps=1) for engine in (Unrolled(), Adjoint(keep=1))
    ]
    first, second = (learner.meta_gradient(task).grads for learner in learners)
    assert {"phi.ridge_cv.strength", "phi.ridge_cv.spread", "phi.ridge_cv.scale"} <= set(first)
    assert all(torch.allclose(leaf, second[name], rtol=1e-9, atol=1e-13) for name, leaf in first.items())
    raw = dict(learners[0].named_parameters())
    name = next(key for key in raw if "ridge_cv.strength" in key)
    ends = []
    for step in (1e-5, -2e-5):
        raw[name].data += step
        ends.append(float(learners[0].meta_gradient(task).aux["loss"].mean()))
    assert abs((ends[0] - ends[1]) / 2e-5 - float(first["phi.ridge_cv.strength"])) < 1e-6
    assert float(norm(first)) > 0
