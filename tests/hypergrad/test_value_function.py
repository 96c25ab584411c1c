"""The penalty method against the implicit derivative by a Neumann series, to which it tends."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rbml.errors import BlindError, UsageError
from rbml.hypergrad import Implicit, Neumann, ValueFunction
from rbml.inner import Carry, Inner
from rbml.tree import Tree


def problem(steps: int = 400) -> tuple[Inner, Tree]:
    """Return a convex problem that is not quadratic, and that converges."""
    source = torch.Generator().manual_seed(0)
    goal, spread = (torch.rand(4, generator=source, dtype=torch.float64) for _ in range(2))

    def objective(theta: Tree, m: Tree, t: object) -> torch.Tensor:
        w = theta["w"]
        return (m["pull"] * (w - m["to"]) ** 2).sum() / 2 + (w**4).sum() / 4 + (spread * w).sum()

    inner = Inner(
        lambda m: Carry({"w": torch.ones(4).double()}, {}),
        objective,
        lambda grads, carry, m, t: Carry({"w": carry.theta["w"] - 0.2 * grads["w"]}, {}),
        lambda carry, m: (((carry.theta["w"] - goal) ** 2).sum() + m["to"].sum() ** 2 / 9, {}),
        steps,
    )
    pull = 0.5 + torch.rand(4, generator=source, dtype=torch.float64)
    return inner, {"pull": pull, "to": torch.randn(4, generator=source, dtype=torch.float64)}


def apart(one: Tree, other: Tree) -> float:
    return float(torch.stack([(one[name] - leaf).norm() for name, leaf in other.items()]).norm())


@pytest.mark.parametrize("iterations", [2, 3, 12])
def test_it_tends_to_the_neumann_series_with_one_over_the_penalty(iterations: int) -> None:
    inner, m = problem()
    truth = Implicit(Neumann(iterations=iterations - 1, rate=0.1))(inner, m).grads
    found = {penalty: ValueFunction(penalty, iterations, 0.1)(inner, m) for penalty in (100.0, 200.0, 400.0)}
    errors = [apart(one.grads, truth) for one in found.values()]
    assert all(1.9 < large / small < 2.1 for large, small in pairwise(errors)), errors
    assert all(float(one.info["gap"]) < 1e-12 for one in found.values())


def test_with_many_iterations_it_is_the_derivative_of_the_solution() -> None:
    inner, m = problem()
    truth = Implicit(Neumann(iterations=2000, rate=0.1))(inner, m)
    found = ValueFunction(1e5, 2000, 0.1)(inner, m)
    assert apart(found.grads, truth.grads) < 1e-4 * apart(truth.grads, {n: 0 * g for n, g in truth.grads.items()})
    assert torch.equal(found.loss, truth.loss)


def test_what_it_cannot_see_and_options_that_mean_nothing_are_refused() -> None:
    inner, m = problem()
    blind = Inner(inner.start, inner.objective, inner.update, inner.outer, 3, {"rate": frozenset({"update"})})
    with pytest.raises(BlindError, match="rate"):
        ValueFunction()(blind, m | {"rate": torch.tensor(0.1)})
    for options in ({"penalty": 0}, {"rate": -1}, {"iterations": 0}):
        with pytest.raises(UsageError, match=next(iter(options))):
            ValueFunction(**options)  # type: ignore[arg-type]
