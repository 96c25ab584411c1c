"""Exact engines agree with each other and with central differences; windows agree with plain autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.contracts.engines import exact_for
from tests.contracts.problems import PROBLEMS, Errors, Problem, Task, full
from torch import Tensor, func

from rbml.hypergrad import Adjoint, Hypergradient, Unrolled, directional_difference
from rbml.inner import Inner, roll
from rbml.tree import Tree

WITH_WINDOW: dict[str, Callable[[int], Hypergradient]] = {
    "unrolled": lambda window: Unrolled(window=window),
    "adjoint": lambda window: Adjoint(window=window),
    "adjoint, hvp": lambda window: Adjoint(window=window, hvp="reverse", keep=0),
    "adjoint, segments": lambda window: Adjoint(store="segments", window=window, keep=0),
    "adjoint, keep": lambda window: Adjoint(window=window, keep=3),
    "adjoint, reverse": lambda window: Adjoint(store="reverse", window=window),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_exact_engines_agree(name: str, task: Task, error: Errors) -> None:
    inner, m = task(PROBLEMS[name])
    truth = Unrolled()(inner, m)
    for leaf, grad in truth.grads.items():
        # Only a number that no step has used (the momentum of a first step) may have no derivative.
        assert float(grad.norm()) > 1e-9 or (PROBLEMS[name].steps == 1 and "momentum" in leaf), leaf
    for engine in (engine for row in exact_for(PROBLEMS[name]) for engine in row):
        result = engine(inner, m)
        assert error(result.grads, truth.grads) < 1e-11, f"{engine}: the issue asks for 1e-10"
        assert torch.allclose(result.loss, truth.loss, rtol=1e-13)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if "adam" not in name and "50" not in name])
def test_exact_engines_agree_with_central_differences(name: str, task: Task) -> None:
    """Every leaf, along its own gradient and a random direction at once: the first for signal, the second to see all.

    Not with Adam, whose step has a kink where an element of the gradient is zero: tests/strategy/test_adaptive.py.

    The difference of fourth order with h = 1e-4 errs by rounding, about 2e-16 * loss / h = 2e-12, and by h**4 = 1e-16
    times the fifth derivative, up to 1e6 here. Hence 3e-11 beside a relative 1e-8; the gradients are 1e-5 to 1.
    """
    inner, m = task(PROBLEMS[name])
    found = [(row[0], row[0](inner, m).grads) for row in exact_for(PROBLEMS[name])]
    directions = {leaf: along(grad) for leaf, grad in found[0][1].items()}
    one_by_one = {
        leaf: torch.stack([way if other == leaf else torch.zeros_like(way) for other in m])
        for leaf, way in directions.items()
    }
    measured = func.vmap(lambda way: directional_difference(inner, m, way, step=1e-4))(one_by_one)
    for leaf, difference in zip(m, measured, strict=True):
        for engine, grads in found:
            derived = (grads[leaf] * directions[leaf]).sum()
            assert abs(difference - derived) <= 1e-8 * abs(derived) + 3e-11, (engine, leaf, derived, difference)


def along(grad: Tensor) -> Tensor:
    """Return a unit direction, half the gradient's own and half random."""
    noise = torch.randn_like(grad)
    noise = noise / noise.norm() * (1 if (noise * grad).sum() >= 0 else -1)
    direction = noise + grad / (grad.norm() + 1e-30)
    return direction / direction.norm()


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_windows_mean_the_same_to_every_engine(net: str, window: int, task: Task, error: Errors) -> None:
    inner, m = task(Problem(net, full, 5))
    truth = truncated(inner, m, window)
    whole = Unrolled()(inner, m)
    for name, engine in WITH_WINDOW.items():
        result = engine(window)(inner, m)
        assert error(result.grads, truth) < 1e-11, name
        assert torch.allclose(result.loss, whole.loss, rtol=1e-13), "truncation is of the derivative alone"
        assert error(result.grads, whole.grads) > 1e-3, f"{name}: a window of {window} of 5 steps must not be exact"


@pytest.mark.parametrize("name", sorted(WITH_WINDOW))
@pytest.mark.parametrize("window", [3, 4])
def test_a_window_that_holds_all_steps_is_exact(name: str, window: int, task: Task, error: Errors) -> None:
    inner, m = task(Problem("mlp", full, 3))
    assert error(WITH_WINDOW[name](window)(inner, m).grads, Unrolled()(inner, m).grads) < 1e-12


def truncated(inner: Inner, m: Tree, window: int) -> Tree:
    """Return the truncated hypergradient by plain autograd: the last steps on a graph, from theta0 as their start."""
    first = inner.steps - window
    early = roll(inner, inner.start(m), m, stop=first)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in m.items()}
    start = inner.start(leaves).theta
    theta = {name: leaf.detach() + start[name] - start[name].detach() for name, leaf in early.theta.items()}
    carry = early._replace(theta=theta)
    for t in range(first, inner.steps):
        names = list(carry.theta)
        grads = torch.autograd.grad(
            inner.objective(carry.theta, leaves, t), [carry.theta[n] for n in names], create_graph=True
        )
        carry = inner.update(dict(zip(names, grads, strict=True)), carry, leaves, t)
    loss, _ = inner.outer(carry, leaves)
    got = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, got, strict=True))
