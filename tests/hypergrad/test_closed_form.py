"""Quadratics, where the derivative through gradient descent is known by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient, Unrolled
from rbml.inner import Carry, Inner
from rbml.tree import Tree

EXACT: list[Hypergradient] = [Unrolled(), Adjoint(), Adjoint(hvp="reverse")]
N = 4


def ridge(steps: int) -> tuple[Inner, Tree, Tensor, Tensor, Tensor]:
    """Return descent on 1/2 theta'A theta - c'theta + 1/2 decay |theta|^2, judged by 1/2 |theta_T - q|^2."""
    factor = torch.randn(N, N, dtype=torch.float64)
    a, c, q = factor @ factor.T / N + torch.eye(N).double(), torch.randn(N).double(), torch.randn(N).double()

    def objective(theta: Tree, m: Tree, t: int) -> Tensor:
        w = theta["w"]
        return 0.5 * w @ a @ w - c @ w + 0.5 * m["decay"] * w @ w

    def update(grads: Tree, carry: Carry, m: Tree, t: int) -> Carry:
        return Carry({"w": carry.theta["w"] - m["lr"] * grads["w"]}, carry.state)

    def outer(carry: Carry, m: Tree) -> tuple[Tensor, Tree]:
        return 0.5 * ((carry.theta["w"] - q) ** 2).sum(), {"theta": carry.theta["w"]}

    inner = Inner(lambda m: Carry({"w": m["start"]}, {}), objective, update, outer, steps)
    m = {"start": torch.randn(N).double(), "lr": torch.tensor(0.1).double(), "decay": torch.tensor(0.3).double()}
    return inner, m, a, c, q


@pytest.mark.parametrize("engine", EXACT, ids=repr)
@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_descent_on_a_ridge_is_a_power_of_a_matrix(steps: int, engine: Hypergradient) -> None:
    inner, m, a, c, q = ridge(steps)
    hessian = a + m["decay"] * torch.eye(N)
    shrink = torch.eye(N) - m["lr"] * hessian
    optimum = torch.linalg.solve(hessian, c)
    power = torch.linalg.matrix_power(shrink, steps)
    theta = optimum + power @ (m["start"] - optimum)
    left = theta - q
    by_start = power @ left  # symmetric
    by_lr = torch.zeros(()).double()
    by_decay = torch.zeros(()).double()
    for t in range(
        steps
    ):  # d(theta_{t+1}) = shrink d(theta_t) - (A theta_t - c + decay theta_t) d(lr) - lr theta_t d(decay)
        at = optimum + torch.linalg.matrix_power(shrink, t) @ (m["start"] - optimum)
        rest = torch.linalg.matrix_power(shrink, steps - 1 - t) @ left
        by_lr -= rest @ (hessian @ at - c)
        by_decay -= m["lr"] * rest @ at
    result = engine(inner, m)
    assert torch.allclose(result.aux["theta"], theta, rtol=1e-13)
    assert torch.allclose(result.loss, 0.5 * left @ left, rtol=1e-13)
    for name, truth in {"start": by_start, "lr": by_lr, "decay": by_decay}.items():
        assert torch.allclose(result.grads[name], truth, rtol=1e-12, atol=1e-15), name


@pytest.mark.parametrize("engine", EXACT, ids=repr)
def test_at_the_optimum_it_is_the_derivative_of_ridge_regression(engine: Hypergradient) -> None:
    """theta* = (A + decay)^-1 c: d/d(decay) = -(A + decay)^-1 theta*, and neither the start nor the rate matters."""
    inner, m, a, c, q = ridge(80)
    m["lr"] = torch.tensor(0.3).double()
    hessian = a + m["decay"] * torch.eye(N)
    optimum = torch.linalg.solve(hessian, c)
    truth = -torch.linalg.solve(hessian, optimum) @ (optimum - q)
    result = engine(inner, m)
    assert torch.allclose(result.aux["theta"], optimum, rtol=1e-12)
    assert torch.allclose(result.grads["decay"], truth, rtol=1e-10)
    assert float(result.grads["start"].norm()) < 1e-10 and float(result.grads["lr"].abs()) < 1e-10


def test_first_order_takes_every_inner_gradient_as_a_constant() -> None:
    inner, m, a, c, q = ridge(3)
    result = FirstOrder()(inner, m)
    theta, by_lr = m["start"], torch.zeros(N).double()
    for _ in range(3):
        gradient = a @ theta - c + m["decay"] * theta
        theta, by_lr = theta - m["lr"] * gradient, by_lr - gradient
    assert torch.allclose(result.grads["start"], theta - q, rtol=1e-13)
    assert torch.allclose(result.grads["lr"], by_lr @ (theta - q), rtol=1e-13)
