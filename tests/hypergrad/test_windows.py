"""Truncations that have a name of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rbml.hypergrad import Adjoint, Hypergradient, Unrolled
from rbml.inner import Carry, Inner
from rbml.tree import Tree

ENGINES: list[Hypergradient] = [
    Unrolled(window=1),
    Adjoint(window=1),
    Adjoint(store="segments", window=1),
    Adjoint(window=1, hvp="reverse"),
]


def weighted(steps: int) -> tuple[Inner, Tree, Callable[[Tree], Tensor], Callable[[Tree, Tree], Tensor]]:
    """Return descent on a loss with learned weights of its examples, held against another loss."""
    x, y, qx, qy = (torch.randn(shape).double() for shape in ((6, 4), (6,), (5, 4), (5,)))

    def training(theta: Tree, m: Tree) -> Tensor:
        return (torch.sigmoid(m["weights"]) * (torch.tanh(x @ theta["w"]) - y) ** 2).sum()

    def held_out(theta: Tree) -> Tensor:
        return ((torch.tanh(qx @ theta["w"]) - qy) ** 2).mean()

    inner = Inner(
        lambda m: Carry({"w": torch.ones(4).double()}, {}),
        lambda theta, m, t: training(theta, m),
        lambda grads, carry, m, t: Carry({"w": carry.theta["w"] - 0.1 * grads["w"]}, {}),
        lambda carry, m: (held_out(carry.theta), {}),
        steps,
    )
    return inner, {"weights": torch.randn(6).double()}, held_out, training


def before_the_last(inner: Inner, m: Tree) -> Tree:
    theta = inner.start(m).theta
    for _ in range(inner.steps - 1):
        grads = torch.func.grad(inner.objective)(theta, m, 0)
        theta = {"w": theta["w"] - 0.1 * grads["w"]}
    return theta


@pytest.mark.parametrize("engine", ENGINES, ids=repr)
def test_a_window_of_one_is_t1_t2(engine: Hypergradient) -> None:
    """Luketina et al. 2016, equation 3: the update of the last step alone, its Hessian taken as nothing.

    d L / d m = - eta * grad L(theta_T) . d^2 C / (d theta d m) at theta_{T-1}.
    """
    inner, m, held_out, training = weighted(7)
    theta = before_the_last(inner, m)
    last = {"w": theta["w"] - 0.1 * torch.func.grad(training)(theta, m)["w"]}
    mixed = torch.func.jacrev(torch.func.grad(training), argnums=1)(theta, m)["w"]["weights"]
    truth = -0.1 * torch.func.grad(held_out)(last)["w"] @ mixed
    assert float(truth.norm()) > 1e-4
    assert torch.allclose(engine(inner, m).grads["weights"], truth, rtol=1e-12)


def test_a_window_of_one_with_differences_is_darts() -> None:
    """Liu et al. 2019, equation 8: (grad_m C(theta + e v) - grad_m C(theta - e v)) / 2e, times the rate."""
    inner, m, held_out, training = weighted(7)
    theta = before_the_last(inner, m)
    last = {"w": theta["w"] - 0.1 * torch.func.grad(training)(theta, m)["w"]}
    v = torch.func.grad(held_out)(last)["w"]
    eps = 2 * torch.finfo(torch.float64).eps ** (1 / 3) / v.norm()

    def by_m(sign: float) -> Tensor:
        return torch.func.grad(training, argnums=1)({"w": theta["w"] + sign * eps * v}, m)["weights"]

    truth = -0.1 * (by_m(1) - by_m(-1)) / (2 * eps)
    found = Adjoint(window=1, hvp="difference")(inner, m).grads["weights"]
    assert torch.allclose(found, truth, rtol=1e-8)
    assert torch.allclose(found, Adjoint(window=1)(inner, m).grads["weights"], rtol=1e-7)
