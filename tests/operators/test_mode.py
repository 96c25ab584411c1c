"""Every replaced operator: the same values, and the derivatives of the formula written out, where PyTorch has none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml.autodiff.products import grad_product
from rbml.operators import REPLACED, Differentiable
from rbml.tree import Tree

Function = Callable[[Tensor, Tensor], Tensor]


def squares(p: Tensor, y: Tensor) -> Tensor:
    return (p - y) ** 2


def hubers(p: Tensor, y: Tensor, delta: float = 1.0) -> Tensor:
    far = (p - y).abs()
    return torch.where(far < delta, 0.5 * far**2, delta * (far - 0.5 * delta))


def margins(p: Tensor, y: Tensor) -> Tensor:
    return torch.log1p(torch.exp(-p * y.sign()))


def weights(p: Tensor) -> Tensor:
    return torch.linspace(0.5, 2.0, p.numel(), dtype=p.dtype).view(p.shape)


LOSSES: dict[str, tuple[Function, Function]] = {
    "mse": (F.mse_loss, lambda p, y: squares(p, y).mean()),
    "mse sum": (lambda p, y: F.mse_loss(p, y, reduction="sum"), lambda p, y: squares(p, y).sum()),
    "mse none": (lambda p, y: F.mse_loss(p, y, reduction="none").max(), lambda p, y: squares(p, y).max()),
    "mse module": (nn.MSELoss(), lambda p, y: squares(p, y).mean()),
    "mse in the middle": (lambda p, y: 2 * F.mse_loss(p, y).sqrt(), lambda p, y: 2 * squares(p, y).mean().sqrt()),
    "mse weighted": (
        lambda p, y: F.mse_loss(p, y, weight=weights(p)),
        lambda p, y: (weights(p) * squares(p, y)).sum() / weights(p).sum(),
    ),
    "huber": (F.huber_loss, lambda p, y: hubers(p, y).mean()),
    "huber delta": (lambda p, y: F.huber_loss(p, y, delta=0.3), lambda p, y: hubers(p, y, 0.3).mean()),
    "huber sum": (nn.HuberLoss(reduction="sum", delta=2.0), lambda p, y: hubers(p, y, 2.0).sum()),
    "huber weighted": (
        lambda p, y: F.huber_loss(p, y, weight=weights(p)),
        lambda p, y: (weights(p) * hubers(p, y)).mean(),
    ),
    "smooth l1": (F.smooth_l1_loss, lambda p, y: hubers(p, y).mean()),
    "smooth l1 beta": (lambda p, y: F.smooth_l1_loss(p, y, beta=0.5), lambda p, y: hubers(p, y, 0.5).mean() / 0.5),
    "smooth l1 sum": (nn.SmoothL1Loss(reduction="sum"), lambda p, y: hubers(p, y).sum()),
    "soft margin": (lambda p, y: F.soft_margin_loss(p, y.sign()), lambda p, y: margins(p, y).mean()),
    "soft margin sum": (lambda p, y: nn.SoftMarginLoss(reduction="sum")(p, y.sign()), lambda p, y: margins(p, y).sum()),
}


def second(function: Function, mode: str) -> Tree:
    """Return a Hessian product and a mixed term, vectorised over three tasks."""
    x, y = torch.randn(3, 6, 2, dtype=torch.float64), torch.randn(3, 6, 2, dtype=torch.float64)
    theta, m = {"w": torch.randn(2, 2, dtype=torch.float64)}, {"s": torch.randn(2, dtype=torch.float64)}

    def one(x: Tensor, y: Tensor) -> Tree:
        def objective(theta: Tree, m: Tree) -> Tensor:
            with Differentiable():
                return function(torch.tanh(x @ theta["w"]) * m["s"], y)

        along_theta, along_m = grad_product(objective, theta, m, theta, mode)  # type: ignore[arg-type]
        return along_theta | along_m

    return func.vmap(one)(x, y)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("name", LOSSES)
def test_second_derivatives_of_losses(name: str, mode: str) -> None:
    ours, formula = LOSSES[name]
    torch.manual_seed(1)
    found = second(ours, mode)
    torch.manual_seed(1)
    truth = second(formula, mode)
    for leaf, expected in truth.items():
        assert float(expected.norm()) > 1e-3
        assert torch.allclose(found[leaf], expected, rtol=1e-11, atol=1e-13), leaf


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_first_derivatives_are_those_of_pytorch(name: str) -> None:
    ours, _ = LOSSES[name]
    p, y = (3 * torch.randn(40, 2, dtype=torch.float64) for _ in range(2))
    grad, value = func.grad_and_value(ours)(p, y)
    with Differentiable():
        our_grad, our_value = func.grad_and_value(ours)(p, y)
    assert torch.allclose(our_value, value, rtol=1e-13) and torch.allclose(our_grad, grad, rtol=1e-12, atol=1e-15)


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("causal", [False, True])
def test_second_derivatives_of_attention(causal: bool, mode: str) -> None:
    def by(run: Callable[..., Tensor]) -> Tree:
        def function(p: Tensor, y: Tensor) -> Tensor:
            q, k, v = (one[None, None] for one in (p * 2, p + y, y * p))  # (batch, heads, n, width): fused
            return (run(q, k, v) ** 2).mean()

        torch.manual_seed(2)
        return second(function, mode)

    found = by(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=causal))
    for leaf, truth in by(lambda q, k, v: attention(q, k, v, causal)).items():
        assert torch.allclose(found[leaf], truth, rtol=1e-10, atol=1e-12), leaf


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dims", [0, 1, 2])
def test_batch_norm_by_given_statistics_has_a_derivative_by_them(dims: int, affine: bool) -> None:
    shape = (5, 3, *[2] * dims)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    mean, var, weight, bias = (torch.rand(3, dtype=torch.float64) + 0.5 for _ in range(4))
    extra = (weight.requires_grad_(), bias.requires_grad_()) if affine else ()

    def run(x: Tensor, mean: Tensor, var: Tensor, *extra: Tensor) -> Tensor:
        with Differentiable():
            return F.batch_norm(x, mean, var, *extra, eps=1e-3)

    assert torch.allclose(run(x, mean, var, *extra), F.batch_norm(x, mean, var, *extra, eps=1e-3), rtol=1e-12)
    inputs = (x, mean.requires_grad_(), var.requires_grad_(), *extra)
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=True)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dims", [0, 1, 2])
def test_batch_norm_by_the_batch_has_forward_derivatives_of_forward_derivatives(dims: int, affine: bool) -> None:
    shape = (5, 3, *[2] * dims)
    x, direction, weights = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    weight, bias = (torch.rand(3, dtype=torch.float64) + 0.5 if affine else None for _ in range(2))

    def run(x: Tensor) -> Tensor:
        with Differentiable():
            return F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3)

    assert torch.allclose(run(x), F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3), rtol=1e-12)
    inputs = (x.clone().requires_grad_(),)
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=True)

    def slope(x: Tensor) -> Tensor:
        return func.jvp(lambda x: (torch.sin(run(x)) * weights).sum(), (x,), (direction,))[1]

    along, step = func.jvp(slope, (x,), (direction,))[1], 1e-5 * direction
    assert torch.allclose(along, (slope(x + step) - slope(x - step)) / 2e-5, rtol=1e-6)


def test_batch_norm_that_counts_or_must_fail_is_untouched() -> None:
    x, mean, var = torch.randn(5, 3), torch.zeros(3), torch.ones(3)
    expected = F.batch_norm(x, mean.clone(), var.clone(), training=True)
    half = F.batch_norm(x.bfloat16(), None, None, training=True)
    with Differentiable():
        assert torch.equal(F.batch_norm(x, mean, var, training=True), expected)
        assert float(mean.abs().sum()) > 0, "with running statistics it updates them, as PyTorch does"
        assert torch.equal(F.batch_norm(x.bfloat16(), None, None, training=True), half)
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            F.batch_norm(x[:1], None, None, training=True)


def test_nothing_else_is_touched_and_nothing_outlives_the_context() -> None:
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    with Differentiable():
        inside = [F.cross_entropy(x, y), F.smooth_l1_loss(x, x + 1), (x @ x.T).sum(), F.relu(x)]
    outside = [F.cross_entropy(x, y), F.smooth_l1_loss(x, x + 1), (x @ x.T).sum(), F.relu(x)]
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))
    with pytest.raises(RuntimeError, match="ZeroTensors are immutable"):
        func.jvp(func.grad(lambda p: F.mse_loss(p, x)), (x * 2,), (x,))


def test_every_replacement_is_still_needed() -> None:
    """If a later PyTorch can do one of them, this says so: then it can go (docs/facts.md)."""
    x = torch.randn(4, 3, dtype=torch.float64)
    for loss in (F.mse_loss, F.huber_loss, F.soft_margin_loss):
        assert loss in REPLACED
        with pytest.raises((RuntimeError, NotImplementedError)):
            func.jvp(func.grad(lambda p, f=loss: f(p, x)), (x * 2,), (x,))  # type: ignore[misc]
    with pytest.raises((RuntimeError, NotImplementedError)):
        func.jvp(func.grad(lambda p: F.scaled_dot_product_attention(p, p, p).sum()), (x[None, None],), (x[None, None],))
    with pytest.raises(RuntimeError, match="running_mean"):
        func.grad(lambda m: F.batch_norm(x, m, m + 1).sum())(torch.zeros(3, dtype=torch.float64))


def test_layouts_in_memory_do_not_stand_in_the_way_of_vmap() -> None:
    x = torch.randn(2, 3, 4, 5, 5)

    def last(x: torch.Tensor) -> torch.Tensor:
        with Differentiable():
            assert not x.is_contiguous(memory_format=torch.channels_last)
            return 2 * x.contiguous(memory_format=torch.channels_last).contiguous()

    assert torch.equal(torch.func.vmap(last)(x), 2 * x)
