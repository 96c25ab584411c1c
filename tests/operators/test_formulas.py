"""Formulas that stand in the place of PyTorch's operators: its values and first gradients, and right second ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml.errors import UsageError
from rbml.operators import Differentiable

X, Y = (torch.randn(3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
IDS = torch.tensor([[0, 2, 2, 5], [1, 1, 0, 2], [2, 2, 2, 2]])
OFFSETS = torch.tensor([0, 3, 3, 7])
ROWS = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def fixed(module: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    module = module.double()
    for leaf in module.parameters():
        nn.init.normal_(leaf.data, std=0.5)
    return module.requires_grad_(False)


def over(module: nn.Module, pick: Callable[[Any], Tensor] = lambda found: found[0]) -> Callable[[Tensor], Tensor]:
    own = fixed(module)
    return lambda x: pick(own(x))


def weighted_bag(x: Tensor) -> Tensor:
    return F.embedding_bag(IDS, x, mode="sum", per_sample_weights=torch.cos(IDS.double()))


FORMULAS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "LSTM": (over(nn.LSTM(4, 3)), X),
    "LSTM, end": (over(nn.LSTM(4, 3), lambda found: torch.cat(found[1])), X),
    "LSTM, layers, both ways": (over(nn.LSTM(4, 3, 2, bidirectional=True, batch_first=True)), X),
    "LSTM, projected": (over(nn.LSTM(4, 3, proj_size=2, bidirectional=True)), X),
    "LSTM, no bias, one sequence": (over(nn.LSTM(4, 3, bias=False)), X[:, 0]),
    "GRU": (over(nn.GRU(4, 3, 2, bidirectional=True)), X),
    "RNN": (over(nn.RNN(4, 3)), X),
    "RNN, ReLU": (over(nn.RNN(4, 3, nonlinearity="relu")), X),
    "LSTM cell": (over(nn.LSTMCell(4, 3), torch.cat), X[0]),
    "GRU cell": (over(nn.GRUCell(4, 3), lambda found: found), X[0]),
    "RNN cell": (over(nn.RNNCell(4, 3, bias=False, nonlinearity="relu"), lambda found: found), X[0]),
    "bilinear": (lambda x: F.bilinear(x, torch.sin(x), Y[:, 0, :, None] * Y[0, 0], Y[:, 0, 0]), X),
    "weight norm": (lambda x: torch._weight_norm(x, x[:, :1, :1] ** 2, 0), X),
    "weight norm, last": (lambda x: torch._weight_norm(x[0], x[:1, 0], 1), X),
    "gaussian": (lambda x: F.gaussian_nll_loss(x, Y, x**2), X),
    "gaussian, full": (lambda x: F.gaussian_nll_loss(x, Y, x[..., :1] ** 2, full=True, reduction="sum"), X),
    "gaussian, clamped": (lambda x: F.gaussian_nll_loss(x, Y, x**2, eps=0.5, reduction="none"), X),
    "gaussian, a number": (lambda x: F.gaussian_nll_loss(x, Y, 0.3), X),
    "embedding": (lambda x: F.embedding(IDS, x), ROWS),
    "embedding, padding": (lambda x: F.embedding(IDS, x, padding_idx=2), ROWS),
    "embedding, padding from the end": (lambda x: F.embedding(IDS, x, padding_idx=-1), ROWS),
    "embedding, by frequency": (lambda x: F.embedding(IDS, x, scale_grad_by_freq=True), ROWS),
    "bags": (lambda x: F.embedding_bag(IDS, x), ROWS),
    "bags, sum": (lambda x: F.embedding_bag(IDS, x, mode="sum", padding_idx=2), ROWS),
    "bags, mean, padding": (lambda x: F.embedding_bag(IDS, x, padding_idx=2), ROWS),
    "bags, max": (lambda x: F.embedding_bag(IDS[:2], x, mode="max", padding_idx=1), ROWS),
    "bags, weighted": (weighted_bag, ROWS),
    "bags by offsets": (lambda x: F.embedding_bag(IDS.flatten(), x, OFFSETS), ROWS),
    "bags by offsets, max": (lambda x: F.embedding_bag(IDS.flatten(), x, OFFSETS, mode="max"), ROWS),
    "bags by offsets and end": (
        lambda x: F.embedding_bag(IDS.flatten(), x, torch.tensor([0, 3, 12]), include_last_offset=True), ROWS,
    ),
}  # fmt: skip


def value(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    found = function(x)
    return (torch.sin(found) * torch.linspace(1, 2, found.numel(), dtype=found.dtype).view(found.shape)).sum()


@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients_are_those_of_pytorch(name: str) -> None:
    function, x = FORMULAS[name]
    leaf = x.clone().requires_grad_()
    truth = function(leaf)
    (slope,) = torch.autograd.grad(value(function, leaf), leaf)
    with Differentiable():
        assert torch.allclose(function(x), truth, rtol=1e-12, atol=1e-14)
        assert torch.allclose(func.grad(lambda x: value(function, x))(x), slope, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", FORMULAS)
def test_second_derivatives_are_central_differences_in_both_modes_and_vectorised(name: str) -> None:
    function, x = FORMULAS[name]
    direction = torch.cos(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape)

    def slope(x: Tensor) -> Tensor:
        with Differentiable():
            found: Tensor = func.grad(lambda x: value(function, x))(x)
        return found

    def forward(x: Tensor, v: Tensor) -> Tensor:
        return func.jvp(slope, (x,), (v,))[1]

    reverse = func.vjp(slope, x)[1](direction)[0]
    assert torch.allclose(forward(x, direction), reverse, rtol=1e-10, atol=1e-12)
    together = func.vmap(forward)(torch.stack([x, 2 * x]), torch.stack([direction, direction]))
    assert torch.allclose(together[0], reverse, rtol=1e-10, atol=1e-12)
    if name != "embedding, by frequency" and "padding" not in name and "clamped" not in name:  # no true gradients
        step = 1e-5 * direction
        measured = (slope(x + step) - slope(x - step)) / 2e-5
        assert torch.allclose(reverse, measured, rtol=1e-5, atol=1e-7)


def test_pytorchs_second_derivative_of_weight_norm_is_still_wrong() -> None:
    """If a later PyTorch is right, this says so: then the formula can go."""
    v, g = X[0].clone().requires_grad_(), Y[0, :, :1].clone().requires_grad_()

    def slope(function: Callable[..., Tensor]) -> Tensor:
        (first,) = torch.autograd.grad((torch.sin(function(v, g, 0)) * X[1]).sum(), v, create_graph=True)
        return torch.autograd.grad((first * Y[1]).sum(), v)[0]

    with Differentiable():
        right = slope(lambda v, g, dim: g * v / v.norm(dim=1, keepdim=True))
        assert torch.allclose(slope(torch._weight_norm), right, rtol=1e-10)
    assert not torch.allclose(slope(torch._weight_norm), right, rtol=1e-2)


LOSSES = {
    name: getattr(F, name)
    for name in (
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "soft_margin_loss",
        "poisson_nll_loss",
        "kl_div",
    )
}


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_that_would_be_broadcast_are_refused(name: str) -> None:
    with Differentiable(), pytest.raises(UsageError, match=rf"{name} needs .* not \(5, 1\) and \(5,\).*unsqueeze"):
        LOSSES[name](torch.zeros(5, 1), torch.zeros(5))


@pytest.mark.parametrize(
    ("use", "text"),
    [
        (lambda: F.embedding(IDS, ROWS.clone(), max_norm=1.0), "max_norm=None"),
        (lambda: F.embedding_bag(IDS, ROWS.clone(), max_norm=1.0), "max_norm=None"),
        (lambda: F.embedding_bag(IDS, ROWS, per_sample_weights=IDS.double()), "mode='sum'"),
        (lambda: F.embedding_bag(IDS.flatten(), ROWS), "no offsets"),
        (lambda: F.gaussian_nll_loss(X, Y, X[0]), r"\(3, 2, 4\), or one number"),
        (lambda: F.gaussian_nll_loss(X, Y[0], X), "one shape"),
    ],
)
def test_what_cannot_be_meant_is_refused(use: Callable[[], Tensor], text: str) -> None:
    with Differentiable(), pytest.raises(UsageError, match=text):
        use()


def test_a_negative_variance_is_not_a_number() -> None:
    with Differentiable():
        assert torch.isnan(F.gaussian_nll_loss(X, Y, -torch.ones_like(X)))
