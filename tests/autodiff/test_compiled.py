from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func, fx, nn

from rbml import Episodes, hypergrad, models
from rbml.algorithms.options import assemble
from rbml.autodiff import compiled
from rbml.autodiff.compiled import traced
from rbml.strategy import Hyper, chain, dropout, momentum, sgd


def called(graph: fx.GraphModule, name: str) -> int:
    return sum(str(node.target).startswith(f"aten.{name}.") for node in graph.graph.nodes)


def test_what_is_computed_twice_is_computed_once() -> None:
    def function(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b).relu().sum() + (a @ b).relu().max()

    a, b = torch.randn(3, 4), torch.randn(4, 5)
    graph = traced(function, a, b)
    assert called(graph, "mm") == called(graph, "relu") == 1
    assert torch.equal(graph(b.T.contiguous(), a.T.contiguous()), function(b.T.contiguous(), a.T.contiguous()))


def test_not_more_is_kept_for_it_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(a: Tensor) -> Tensor:
        return (a + 1).sum() * (a + 1).sum() + (a + 2).sum() * (a + 2).sum()

    a = torch.randn(100)
    monkeypatch.setattr(compiled, "KEPT", 100 * 4 + 4)
    graph = traced(function, a)
    assert called(graph, "sum") == 3, "the first sum is kept and the second is not"
    assert torch.equal(graph(a), function(a))


def test_what_only_looks_the_same_stays_apart() -> None:
    def function(a: Tensor) -> tuple[Tensor, ...]:
        return a * 1, a * 1.0, torch.rand(3), torch.rand(3)

    whole, number, one, other = traced(function, torch.arange(3))(torch.arange(3))
    assert whole.dtype == torch.int64 and number.dtype == torch.float32
    assert not torch.equal(one, other), "drawn twice"


def test_changes_in_place_are_seen() -> None:
    def function(a: Tensor) -> Tensor:
        own = a.clone()
        before = own.sum()
        own.add_(1)
        return torch.stack([before, own.sum()])

    assert traced(function, torch.zeros(3))(torch.ones(3)).tolist() == [3.0, 6.0]


@pytest.mark.parametrize(
    ("product", "shapes"),
    [("mm", [(2, 3), (3, 4)]), ("bmm", [(5, 2, 3), (5, 3, 4)]), ("convolution", [(2, 3, 6, 6), (4, 3, 3, 3)])],
)
def test_products_with_zeros_are_zeros(product: str, shapes: list[tuple[int, ...]]) -> None:
    def function(a: Tensor, b: Tensor) -> Tensor:
        nothing = torch.zeros(()).expand(a.shape)
        multiply: Any = {"mm": torch.mm, "bmm": torch.bmm, "convolution": F.conv2d}[product]
        return multiply(nothing, b) + multiply(a, b)

    a, b = (torch.randn(shape) for shape in shapes)
    graph = traced(function, a, b)
    assert called(graph, product) == 1
    assert torch.equal(graph(a, b), function(a, b))


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_sweep_takes_hardly_more_products_than_backpropagation(norm: str, pictures: Callable[..., Episodes]) -> None:
    """The inner gradients of the way forward are those that the way back differentiates."""
    torch.manual_seed(0)
    net: nn.Module = models.Conv4(3, filters=4, norm=norm) if norm == "batch" else models.MLP(28 * 28, 3, (6,), nn.Tanh)
    episodes = pictures(tasks=2, shape=(1, 28, 28), dtype=torch.float32)
    counts, grads = [], []
    for engine in (hypergrad.Unrolled(), hypergrad.Adjoint()):
        rules = chain(dropout(Hyper(0.3)), momentum(0.9), sgd(0.1))
        learner = assemble(net, rules, 2, hypergradient=engine, compile=True)
        seen: list[fx.GraphModule] = []

        def run(function: Callable[..., Any], *arguments: Any, variant: Any, seen: list[Any] = seen) -> Any:
            seen.append(traced(function, *arguments))
            return seen[0](*arguments)

        learner.compiled = run  # type: ignore[assignment]
        torch.manual_seed(1)
        grads.append(learner.meta_gradient(episodes).grads)
        names = ("mm", "bmm", "convolution", "convolution_backward")
        counts.append(sum(called(seen[0], name) for name in names))
    assert counts[1] <= 1.3 * counts[0]
    for name, grad in grads[0].items():
        assert torch.allclose(grad, grads[1][name], rtol=1e-3, atol=1e-5), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_rows_of_several_tasks_are_written_apart() -> None:
    """Compiled as it is traced, the gradients of two tasks by a selected row come out as their sum, each."""

    def gradient(m: Tensor, t: Tensor, x: Tensor) -> Tensor:
        def single(x: Tensor) -> Tensor:
            return func.grad(lambda rows: (rows.index_select(0, t.reshape(1)) * x).sum())(m)

        return func.vmap(single)(x)

    given = torch.randn(5), torch.tensor(3), torch.randn(2)
    assert torch.allclose(compiled.Compiled()(gradient, *given), gradient(*given))
