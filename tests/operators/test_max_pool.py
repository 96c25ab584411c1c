"""Max pooling from strided maxima: PyTorch's values and derivatives, bit for bit, ties included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func

from rbml.operators import max_pool as module
from rbml.operators.max_pool import max_pool2d

SIZES: list[tuple[tuple[int, ...], Any]] = [
    ((2, 3, 6, 8), 2),
    ((2, 3, 7, 5), 2),
    ((3, 6, 6), (2, 3)),
    ((2, 3, 9, 7), [3]),
    ((1, 2, 4, 5), (1, 2)),
    ((1, 1, 4, 4), 4),
]


@pytest.fixture(autouse=True)
def ours_for_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "F", None)  # PyTorch's kernel is not asked


def theirs(x: Tensor, size: Any) -> Tensor:
    return F.max_pool2d(x, size)


def draw(shape: tuple[int, ...], ties: bool) -> Tensor:
    torch.manual_seed(0)
    return torch.randint(3, shape).double() if ties else torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_values_and_derivatives_are_those_of_pytorch(shape: tuple[int, ...], size: Any, ties: bool) -> None:
    x, dx = draw(shape, ties), torch.randn(shape, dtype=torch.float64)
    found, pull = func.vjp(lambda x: max_pool2d(x, size), x)[:2]
    truth, their_pull = func.vjp(lambda x: theirs(x, size), x)[:2]
    g = torch.randn_like(truth)
    assert torch.equal(found, truth) and torch.equal(pull(g)[0], their_pull(g)[0])
    along, their_along = (func.jvp(lambda x, f=f: f(x, size), (x,), (dx,))[1] for f in (max_pool2d, theirs))
    assert torch.equal(along, their_along)


@pytest.mark.parametrize("second", [func.jacfwd, func.jacrev])
def test_second_derivatives_over_tasks(second: Any) -> None:
    x = torch.randn(4, 1, 2, 4, 4, dtype=torch.float64)

    def hessian(pool: Any) -> Tensor:
        return func.vmap(second(func.grad(lambda x: (pool(torch.sin(x), 2) ** 2).sum())))(x)

    assert torch.allclose(hessian(max_pool2d), hessian(theirs), rtol=1e-14)


@pytest.mark.parametrize("place", range(4))
def test_a_nan_is_not_lost(place: int) -> None:
    x = torch.arange(4.0).view(1, 2, 2)
    x.view(-1)[place] = torch.nan
    assert max_pool2d(x, 2).isnan().all()


def test_infinities_are_values_as_others() -> None:
    x = torch.full((1, 2, 4), -torch.inf)
    x[0, 1, 3] = torch.inf
    assert max_pool2d(x, 2).tolist() == [[[-torch.inf, torch.inf]]]


def test_large_pictures_have_places_beyond_two_bytes() -> None:
    x = torch.randn(1, 200, 200)
    grad = func.grad(lambda x: max_pool2d(x, 2).sum())(x)
    assert torch.equal(grad, func.grad(lambda x: theirs(x, 2).sum())(x))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 2, "padding": 1},
        {"kernel_size": 2, "dilation": 2},
        {"kernel_size": 2, "ceil_mode": True},
    ],
)
def test_other_windows_are_left_to_pytorch(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "F", F)
    monkeypatch.setattr(module, "_pooled", None)
    x = draw((2, 3, 7, 7), ties=False)
    assert torch.equal(max_pool2d(x, **options), F.max_pool2d(x, **options))


def test_what_pytorch_refuses_is_refused_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "F", F)
    with pytest.raises(RuntimeError, match="too small"):
        max_pool2d(torch.randn(1, 1, 1, 1), 2)
    with pytest.raises(RuntimeError, match="3D or 4D"):
        max_pool2d(torch.randn(2, 2), 2)
    with pytest.raises(RuntimeError, match="two ints"):
        max_pool2d(torch.randn(1, 1, 4, 4), (2, 2, 2))
