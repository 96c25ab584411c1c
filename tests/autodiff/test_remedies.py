"""PyTorch's own errors, raised for real, come with what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func
from torch.utils.checkpoint import checkpoint

from rbml.autodiff.remedies import named

X = torch.tensor([0.5, 0.2, -0.3], dtype=torch.float64)
KEPT = torch.zeros(3, dtype=torch.float64)


def changed(x: Tensor) -> Tensor:
    KEPT.add_(x)
    return KEPT.sum()


def sampled(x: Tensor) -> Tensor:
    grid = x[:2].expand(1, 2, 2, 2)
    return F.grid_sample(x.expand(1, 1, 3, 3), grid, align_corners=False).sum()


def margin(x: Tensor) -> Tensor:
    return F.multi_margin_loss(x[None], torch.tensor([1]))


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: checkpoint(torch.sin, x, use_reentrant=False).sum(), "leave it out"),
        (lambda x: torch.from_numpy(x.numpy()).sum(), "NumPy"),
        (margin, "second derivative of multi_margin_loss_backward"),
        (sampled, 'grid_sampler_2d has no forward derivative.*hvp="reverse"'),
        (changed, "register_buffer"),
    ],
)
def test_each_kind_is_named(function: Callable[[Tensor], Tensor], text: str) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)) as caught:
        if function is not margin:
            func.jvp(func.grad(function), (X,), (X,))
        func.vjp(func.grad(function), X)[1](X)
    found = named(caught.value)
    assert found is not None
    with pytest.raises(type(found), match=text):
        raise found


def test_other_errors_are_left_alone() -> None:
    assert named(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
