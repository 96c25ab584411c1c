"""What all tests share: one thread, drawn tasks, and the relative error between trees."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from rbml import Batch, Episodes
from rbml.tasks import generator
from rbml.tree import Tree

torch.set_num_threads(1)  # small tensors: threads cost more than they give, and the workers of xdist share the cores


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Give every test the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let PyTorch have two threads, so that tasks may run on threads of their own."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pictures() -> Callable[..., Episodes]:
    """``pictures(tasks=3, ways=3, shots=2, queries=3, shape=(1, 12, 12), dtype=float64)``: noise with labels."""

    def draw(
        tasks: int = 3,
        ways: int = 3,
        shots: int = 2,
        queries: int = 3,
        shape: tuple[int, ...] = (1, 12, 12),
        dtype: torch.dtype = torch.float64,
    ) -> Episodes:
        source = generator(7)

        def batch(count: int) -> Batch:
            x = torch.randn(tasks, ways * count, *shape, dtype=torch.float64, generator=source)
            return Batch(x.to(dtype), torch.arange(ways * count).remainder(ways).expand(tasks, -1))

        return Episodes(batch(shots), batch(queries))

    return draw


@pytest.fixture
def curves() -> Callable[..., Episodes]:
    """``curves(tasks=3, n=5, inputs=2, outputs=1)``: noise with targets to regress on."""

    def draw(tasks: int = 3, n: int = 5, inputs: int = 2, outputs: int = 1) -> Episodes:
        source = generator(8)

        def normal(width: int) -> torch.Tensor:
            return torch.randn(tasks, n, width, dtype=torch.float64, generator=source)

        return Episodes(Batch(normal(inputs), normal(outputs)), Batch(normal(inputs), normal(outputs)))

    return draw


@pytest.fixture
def roughened() -> Callable[[nn.Module], nn.Module]:
    """Move every parameter away from special values: at zeros and ones derivatives vanish and tests see nothing."""

    def roughen(module: nn.Module) -> nn.Module:
        source = generator(9)
        module = module.double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=source)
        return module

    return roughen


@pytest.fixture
def error() -> Callable[[Tree, Tree], float]:
    """``error(tree, truth)``: the largest relative error of a leaf, by norms; the names must be the same."""

    def largest(tree: Tree, truth: Tree) -> float:
        assert set(tree) == set(truth)
        tiny = torch.finfo(torch.float64).tiny
        return max(float((tree[name] - leaf).norm() / (leaf.norm() + tiny)) for name, leaf in truth.items())

    return largest
