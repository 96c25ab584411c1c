"""Convolution by windows: the same value and derivatives as PyTorch's, while a step is traced and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func
from torch.fx.experimental.proxy_tensor import make_fx

from rbml.operators.convolution import conv2d, overlap, patches

WINDOWS = [[3, 3, 1, 1, 1, 1], [3, 3, 2, 2, 1, 1], [2, 3, 2, 1, 0, 2], [1, 1, 1, 1, 0, 0]]
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "two sizes": {"stride": (2, 1), "padding": (0, 2)},
}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("window", WINDOWS)
def test_overlap_is_the_transpose_of_patches(window: list[int]) -> None:
    torch.manual_seed(0)
    x = random(2, 7, 6, 3)
    rows = patches(x, window)
    g = torch.randn_like(rows)
    assert torch.allclose((rows * g).sum(), (x * overlap(g, window, 7, 6)).sum(), rtol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_shapes_are_known_without_values(window: list[int]) -> None:
    torch.library.opcheck(patches, (random(2, 7, 6, 3), window))
    torch.library.opcheck(overlap, (patches(random(2, 7, 6, 3), window), window, 7, 6))


def sums(convolve: Callable[..., Tensor], options: dict[str, Any]) -> Callable[..., Any]:
    """Return a function with a forward derivative of a gradient, over tasks with weights of their own."""

    def objective(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        return convolve(x, weight, bias, **options).tanh().square().sum()

    def single(weight: Tensor, bias: Tensor, x: Tensor, along: Tensor) -> Any:
        gradients = func.grad(objective, argnums=(0, 1, 2))
        return func.jvp(lambda point: gradients(point, bias, x), (weight,), (along,))

    return func.vmap(single, in_dims=(0, None, 0, 0))


@pytest.mark.parametrize("case", CASES)
def test_traced_it_is_the_same(case: str) -> None:
    torch.manual_seed(1)
    given = random(2, 4, 3, 3, 3), random(4), random(2, 5, 3, 7, 6), random(2, 4, 3, 3, 3)
    graph = make_fx(sums(conv2d, CASES[case]))(*given)
    called = [str(node.target) for node in graph.graph.nodes]
    assert any("rbml.patches" in name for name in called) and not any("convolution" in name for name in called)
    found, truth = graph(*given), sums(F.conv2d, CASES[case])(*given)
    for one, other in zip(torch.utils._pytree.tree_leaves(found), torch.utils._pytree.tree_leaves(truth), strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-12)


def test_nested_forward_derivatives_use_the_plain_one() -> None:
    """There PyTorch leaves the outer derivative out of every function with a ``jvp`` of its own."""
    torch.manual_seed(2)
    x, weight, along = random(1, 2, 5, 5), random(3, 2, 3, 3), random(3, 2, 3, 3)

    def twice(weight: Tensor) -> Any:
        def once(point: Tensor) -> Tensor:
            return func.jvp(lambda one: conv2d(x, one, padding=1).tanh().sum(), (point,), (along,))[1]

        return func.jvp(once, (weight,), (along,))

    found, truth = make_fx(twice)(weight)(weight), twice(weight)
    assert torch.allclose(found[1], truth[1], rtol=1e-12)


@pytest.mark.parametrize("options", [{"groups": 3}, {"dilation": 2}, {"padding": "same"}])
def test_other_convolutions_are_pytorchs(options: dict[str, Any]) -> None:
    x, weight = random(2, 3, 7, 7), random(3, 1 if "groups" in options else 3, 3, 3)
    graph = make_fx(lambda x, weight: conv2d(x, weight, **options))(x, weight)
    assert torch.equal(graph(x, weight), F.conv2d(x, weight, **options))


def test_operator_by_operator_nothing_changes() -> None:
    x, weight = random(2, 3, 7, 7), random(4, 3, 3, 3)
    assert torch.equal(conv2d(x, weight), F.conv2d(x, weight))
