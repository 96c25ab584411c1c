"""Batch norm by the batch: every derivative against PyTorch's where that is right, else against central differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func

from rbml.operators import batch_norm as module
from rbml.operators.batch_norm import batch_norm

SHAPES = [(6, 4), (5, 4, 3), (3, 4, 2, 2)]
Point = tuple[Tensor, Tensor, Tensor]
Norm = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True, params=["large", "small"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "large":
        monkeypatch.setattr(module, "LARGE", 0)


def draw(shape: tuple[int, ...], seed: int, lead: tuple[int, ...] = ()) -> Point:
    torch.manual_seed(seed)
    x, weight, bias = (torch.randn(*lead, *size, dtype=torch.float64) for size in (shape, shape[1:2], shape[1:2]))
    return 2 * x + 1, weight, bias


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return batch_norm(x, weight, bias, 1e-3)


def theirs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3)


def written_out(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = (-1, *[1] * (x.dim() - 2))
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred**2).mean(axes, keepdim=True) + 1e-3).sqrt() * weight.view(shape) + bias.view(shape)


def loss(norm: Norm) -> Callable[..., Tensor]:
    def run(*point: Tensor) -> Tensor:
        y = norm(*point)
        return (torch.sin(y) * torch.linspace(0.5, 2, y.numel(), dtype=y.dtype).view(y.shape)).sum()

    return run


def gradient(norm: Norm) -> Callable[..., Point]:
    return func.grad(loss(norm), argnums=(0, 1, 2))


def forward(function: Callable[..., Point], direction: Point) -> Callable[..., Point]:
    return lambda *point: func.jvp(function, point, direction)[1]


def reverse(function: Callable[..., Point], direction: Point) -> Callable[..., Point]:
    return lambda *point: func.vjp(function, *point)[1](direction)


def same(found: Point, truth: Point) -> bool:
    return all(torch.allclose(one, other, rtol=1e-10, atol=1e-11) for one, other in zip(found, truth, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_value_gradient_and_second_derivatives_are_those_of_pytorch(shape: tuple[int, ...]) -> None:
    point, direction = draw(shape, 0), draw(shape, 1)
    assert torch.allclose(ours(*point), theirs(*point), rtol=1e-12, atol=1e-13)
    assert same(gradient(ours)(*point), gradient(theirs)(*point))
    truth = forward(gradient(theirs), direction)(*point)
    for second in (forward, reverse):
        assert same(second(gradient(ours), direction)(*point), truth), second


@pytest.mark.parametrize("second", [forward, reverse])
def test_over_tasks_it_is_the_loop_over_them(second: Callable[..., Callable[..., Point]]) -> None:
    points, directions = draw((3, 4, 2), 0, (5,)), draw((3, 4, 2), 1, (5,))

    def run(point: Point, direction: Point) -> Point:
        return second(gradient(ours), direction)(*point)

    stacked = func.vmap(run)(points, directions)
    for task in range(5):
        one = run(tuple(leaf[task] for leaf in points), tuple(leaf[task] for leaf in directions))  # type: ignore[arg-type]
        assert same(tuple(leaf[task] for leaf in stacked), one)  # type: ignore[arg-type]


@pytest.mark.parametrize("dims", [(0, None, None), (None, 0, None), (None, None, 0), (2, 0, 1)])
@pytest.mark.parametrize("inner", [False, True])
def test_over_tasks_of_which_some_leaves_are_shared(dims: tuple[int | None, ...], inner: bool) -> None:
    point = draw((3, 4, 2), 0)
    stacked = [
        leaf if at is None else torch.stack([leaf, 2 * leaf + 1], at) for leaf, at in zip(point, dims, strict=True)
    ]

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Point:
        return gradient(ours)(x, weight, bias)

    over = func.vmap(run, in_dims=dims)
    if inner:
        over = func.vmap(over, in_dims=(0, None, None))
        stacked[0] = torch.stack([stacked[0], -stacked[0]])
    found = over(*stacked)
    for task in range(2):
        own = [leaf if at is None else 2 * leaf + 1 if task else leaf for leaf, at in zip(point, dims, strict=True)]
        mine = tuple(leaf[0, task] if inner else leaf[task] for leaf in found)
        assert same(mine, gradient(theirs)(*own))  # type: ignore[arg-type]


@pytest.mark.parametrize("third", [forward, reverse])
@pytest.mark.parametrize("second", [forward, reverse])
def test_third_derivatives(
    second: Callable[..., Callable[..., Point]], third: Callable[..., Callable[..., Point]]
) -> None:
    """Forwards over forwards is where a ``torch.autograd.Function`` is silently wrong: there it is written out."""
    point, first, then = draw((4, 3, 2), 0), draw((4, 3, 2), 1), draw((4, 3, 2), 2)
    found, truth = (third(second(gradient(norm), first), then)(*point) for norm in (ours, written_out))
    assert same(found, truth)


def test_a_pullback_made_before_it_is_differentiated_forwards_twice() -> None:
    point, cotangent = draw((4, 3, 2), 0), torch.ones(4, 3, 2, dtype=torch.float64)

    def along(norm: Norm) -> Point:
        pull = func.vjp(norm, *point)[1]
        first = lambda c: func.jvp(lambda c: pull(c * c), (c,), (cotangent,))[1]  # noqa: E731
        return func.jvp(first, (cotangent,), (cotangent,))[1]

    assert same(along(ours), along(written_out))


def test_forward_derivatives_of_forward_derivatives() -> None:
    point, direction = draw((4, 3, 2), 0), draw((4, 3, 2), 1)
    slope = lambda *point: func.jvp(loss(ours), point, direction)[1]  # noqa: E731
    found = func.jvp(slope, point, direction)[1]
    ahead, behind = (
        slope(*(one + sign * 1e-5 * way for one, way in zip(point, direction, strict=True))) for sign in (1, -1)
    )
    assert torch.allclose(found, (ahead - behind) / 2e-5, rtol=1e-7)
    wrong = func.jvp(lambda *point: func.jvp(loss(theirs), point, direction)[1], point, direction)[1]
    assert not torch.allclose(found, wrong, rtol=1e-5), "PyTorch's own is right now: ours is only faster"


@pytest.mark.parametrize("among", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_derivatives_by_some_of_the_leaves(among: tuple[int, ...]) -> None:
    point, direction = draw((3, 4, 2), 0), draw((3, 4, 2), 1)

    def of(norm: Norm) -> Callable[..., Tensor]:
        return lambda *some: loss(norm)(*(some[among.index(i)] if i in among else point[i] for i in range(3)))

    some, along = tuple(point[i] for i in among), tuple(direction[i] for i in among)
    everywhere = tuple(range(len(among)))
    for which in (lambda f: func.jvp(f, some, along), lambda f: func.jvp(func.grad(f, everywhere), some, along)):
        for found, truth in zip(which(of(ours)), which(of(theirs)), strict=True):
            assert same(*((one,) if isinstance(one, Tensor) else one for one in (found, truth)))  # type: ignore[arg-type]
    pulled, truth = (func.vjp(func.grad(of(norm), everywhere), *some)[1](along) for norm in (ours, theirs))
    assert same(pulled, truth)


def test_without_weight_and_bias() -> None:
    x = draw((3, 4, 2, 2), 0)[0]
    assert torch.allclose(batch_norm(x, None, None, 1e-3), F.batch_norm(x, None, None, None, None, True, 0.1, 1e-3))
