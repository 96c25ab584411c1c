"""Derivatives of one task by itself equal those under the transforms of torch.func, and are taken by plain graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn

import rbml
from rbml.autodiff.alone import gradient, gradient_and_pull, gradient_and_value
from rbml.hypergrad import Unrolled
from rbml.operators.alone import alone, is_alone
from rbml.strategy import sgd
from rbml.tree import Tree

Pictures = Callable[..., rbml.Episodes]


def objective(theta: Tree, m: Tree) -> Tensor:
    return (theta["a"] * m["a"]).sin().sum() + (theta["a"] ** 3).sum()


@pytest.fixture
def point() -> tuple[Tree, Tree, Tree]:
    drawn = torch.randn(5, 4, dtype=torch.float64)
    return (
        {"a": drawn[0], "unused": drawn[1]},
        {"a": drawn[2], "other": drawn[3]},
        {"a": drawn[4], "unused": drawn[1]},
    )


def same(found: Any, truth: Any) -> None:
    torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-14)


def test_it_is_for_no_transform() -> None:
    assert not is_alone()
    with alone():
        assert is_alone()
        seen: list[bool] = []

        def watched(x: Tensor) -> Tensor:
            seen.append(is_alone())
            return x.sum()

        func.grad(watched)(torch.zeros(2))
        assert seen == [False]
    assert not is_alone()


def test_derivatives_equal_those_of_the_transforms(point: tuple[Tree, Tree, Tree]) -> None:
    theta, m, direction = point
    truth = gradient(objective, theta, m), *gradient_and_value(lambda m: (objective(theta, m), {"x": m["a"]}), m)
    first, pull = gradient_and_pull(objective, theta, m)
    second = pull(direction)
    with alone():
        own = gradient(objective, theta, m), *gradient_and_value(lambda m: (objective(theta, m), {"x": m["a"]}), m)
        ahead, back = gradient_and_pull(objective, theta, m)
        same(back(direction), second)
    same(own, truth)
    same(ahead, first)
    assert not any(leaf.requires_grad for leaf in [*own[0].values(), *own[1].values(), *ahead.values()])


def test_only_the_way_through_theta_counts_where_it_is_one_of_m() -> None:
    start = torch.randn(3, dtype=torch.float64)

    def through_two_steps(m: Tree) -> tuple[Tensor, Tree]:
        grads = gradient(lambda theta, m: ((theta["a"] - m["a"]) ** 2 + theta["a"] ** 3).sum(), {"a": m["a"]}, m)
        return (grads["a"] ** 2).sum(), {}

    truth = gradient_and_value(through_two_steps, {"a": start})
    with alone():
        same(gradient_and_value(through_two_steps, {"a": start}), truth)


def test_what_does_not_depend_on_a_variable_has_zeros() -> None:
    with alone():
        grads, pull = gradient_and_pull(lambda theta, m: theta["a"].sum(), {"a": torch.ones(2)}, {"b": torch.ones(3)})
        assert torch.equal(grads["a"], torch.ones(2))
        same(pull({"a": torch.ones(2)}), ({"a": torch.zeros(2)}, {"b": torch.zeros(3)}))
        same(gradient(lambda theta: torch.ones(()), {"a": torch.ones(2)}), {"a": torch.zeros(2)})


def test_one_task_runs_by_itself_unless_it_is_to_be_vectorised(pictures: Pictures) -> None:
    seen: list[bool] = []

    class Looks(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(is_alone())
            return super().forward(x)

    for vectorise, tasks, expected in (("auto", 1, True), (True, 1, False), ("auto", 2, False), (False, 2, True)):
        seen.clear()
        learner = rbml.Learner(
            Looks(6, 3).double(), sgd(0.1), 1, hypergradient=Unrolled(),
            execution=rbml.Execution(vectorise=vectorise, verify=False),
        )  # fmt: skip
        learner.meta_gradient(pictures(tasks=tasks, shape=(6,)))
        assert seen and all(one == expected for one in seen[-2:])
