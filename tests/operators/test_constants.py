"""What is computed while gradients are off is a constant in every mode; what is not the same twice is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml.errors import UsageError
from rbml.operators import Differentiable

X = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
V = torch.tensor([1.0, 0.5, -1.0], dtype=torch.float64)


def gate(x: Tensor) -> Tensor:
    with torch.no_grad():
        factor = torch.sigmoid(x)
    return (factor * x**2).sum()


def in_place(x: Tensor) -> Tensor:
    h = x * x
    with torch.no_grad():
        h.mul_(3.0)
        h[0] = 0.5
    return (h * x).sum()


def written(x: Tensor) -> Tensor:
    kept = torch.zeros_like(x)
    with torch.no_grad():
        kept.copy_(x)
        kept += x
    return (kept * x**2).sum()


def data(x: Tensor) -> Tensor:
    return (x.data * x**2).sum()


def enabled_again(x: Tensor) -> Tensor:
    with torch.no_grad():
        first = torch.sin(x)
        with torch.enable_grad():
            second = torch.sin(x)
    return (first * second * x).sum()


def decorated(x: Tensor) -> Tensor:
    return torch.no_grad()(torch.cos)(x) @ x**2


@pytest.mark.parametrize("function", [gate, in_place, written, data, enabled_again, decorated])
@pytest.mark.parametrize("switched_off", [False, True])
def test_constants_are_constants_in_every_mode(function: Callable[[Tensor], Tensor], switched_off: bool) -> None:
    leaf = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(leaf), leaf, create_graph=True)
    (truth,) = torch.autograd.grad(slope, leaf, V)

    def inside(x: Tensor) -> Tensor:
        with Differentiable():
            return function(x)

    with torch.set_grad_enabled(not switched_off):
        tangent = func.jvp(inside, (X,), (V,))[1]
        assert torch.allclose(tangent, slope @ V)
        assert torch.allclose(func.jvp(func.grad(inside), (X,), (V,))[1], truth)
        assert torch.allclose(func.vjp(func.grad(inside), X)[1](V)[0], truth)
        both = func.vmap(lambda x, v: func.jvp(func.grad(inside), (x,), (v,))[1])(X.expand(2, 3), V.expand(2, 3))
        assert torch.allclose(both, truth)
        assert torch.is_grad_enabled() != switched_off, "the context leaves the switch as it was"


def test_without_a_forward_derivative_no_graph_is_built_under_no_grad() -> None:
    leaf = X.clone().requires_grad_()
    with torch.no_grad(), Differentiable():
        assert not torch.sin(leaf).requires_grad
    with Differentiable():
        assert torch.sin(leaf).requires_grad


DRAWS: dict[str, Callable[[Tensor], object]] = {
    "rand": lambda x: torch.rand(3),
    "randn_like": torch.randn_like,
    "bernoulli": torch.bernoulli,
    "Tensor.normal_": lambda x: x.clone().normal_(),
    "dropout": F.dropout,
    "dropout2d": lambda x: F.dropout2d(x[None]),
    "alpha_dropout": lambda x: F.alpha_dropout(x, training=True),
    "torch.dropout": lambda x: torch.dropout(x, 0.5, True),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "gumbel_softmax": F.gumbel_softmax,
    "fractional_max_pool": nn.FractionalMaxPool2d(2, 2),
    "scaled_dot_product": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5),
    "multi_head": lambda x: nn.MultiheadAttention(3, 1, dropout=0.5).double()(x[None], x[None], x[None]),
    "torch.distributions": lambda x: torch.distributions.Normal(x, 1.0).rsample(),
    "lstm": nn.LSTM(3, 3, 2, dropout=0.5).double(),
}


@pytest.mark.parametrize("name", DRAWS)
def test_random_numbers_are_refused(name: str) -> None:
    x = torch.rand(1, 1, 6, 6) if "pool" in name else X.abs() / 4
    x = x[None] if name == "lstm" else x
    with Differentiable(), pytest.raises(UsageError, match="draws random numbers"):
        DRAWS[name](x)


def test_dropout_that_does_nothing_is_let_pass() -> None:
    with Differentiable():
        for found in (F.dropout(X, training=False), F.dropout(X, 0.0), F.alpha_dropout(X), nn.Dropout().eval()(X)):
            assert torch.equal(found, X)
        assert torch.equal(F.rrelu(X, 0.1, 0.3), F.leaky_relu(X, 0.2))


def test_hooks_may_look_and_not_touch() -> None:
    seen: list[Tensor] = []

    def watched(x: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Tensor:
        with Differentiable():
            h = x**2
            h.register_hook(hook)  # type: ignore[no-untyped-call]
            return h.sum()

    func.grad(lambda x: watched(x, seen.append))(X)  # type: ignore[arg-type, return-value]
    assert len(seen) == 1
    with pytest.raises(UsageError, match="clip_norm"):
        func.grad(lambda x: watched(x, lambda grad: 2 * grad))(X)
