"""The head of cosines: its formula, what its first step does, and where it may stand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rbml import models
from rbml.errors import UsageError
from rbml.models.cosine_head import of_one_length


def test_it_is_a_cosine_of_bounded_rows() -> None:
    head, x = models.CosineHead(6, 4, scale=7.0).double(), torch.randn(5, 6).double()
    away = x - x.mean(1, keepdim=True)
    unit = away / away.norm(dim=1, keepdim=True)
    rows = torch.stack([row / (1 + row @ row).sqrt() for row in head.weight])
    assert torch.allclose(head(x), 7 * unit @ rows.T, rtol=1e-6)
    assert torch.allclose(head(3 * x + 2), head(x), rtol=1e-6), "neither the length of features nor their mean counts"
    with torch.no_grad():
        head.weight.copy_(1e6 * unit[:4])
    cosines = unit @ (unit[:4] - unit[:4].mean(1, keepdim=True)).T
    assert torch.allclose(head(x), 7 * cosines, atol=1e-6)


def test_a_row_at_zero_becomes_the_direction_of_the_first_example() -> None:
    head, x = models.CosineHead(6, 4).double(), torch.randn(1, 6).double()
    nn.init.zeros_(head.weight)
    nn.functional.cross_entropy(head(x), torch.tensor([2])).backward()
    moved = -head.weight.grad[2]
    assert torch.allclose(moved / moved.norm(), of_one_length(x)[0], rtol=1e-8)


def test_first_and_second_derivatives() -> None:
    """Also of rows at zero, and of features that are all equal."""
    scale, x = torch.tensor(0.7).double(), torch.randn(3, 5).double()
    head = models.CosineHead(5, 2).double()
    weight = torch.randn(2, 5).double()
    weight[0] = 0

    def predicted(*given: torch.Tensor) -> torch.Tensor:
        names = ("weight", "log_scale")
        return torch.func.functional_call(head, dict(zip(names, given[:2], strict=True)), (given[2],))

    inputs = [leaf.requires_grad_() for leaf in (weight, scale, x)]
    assert torch.autograd.gradcheck(predicted, inputs) and torch.autograd.gradgradcheck(predicted, inputs)
    equal = torch.ones(2, 5).double().requires_grad_()
    (grad,) = torch.autograd.grad(predicted(weight, scale, equal).sum(), equal)
    assert grad.isfinite().all()


def test_it_takes_the_place_of_the_last_layer() -> None:
    plain = models.Conv4(5, filters=4, norm="group")
    made = models.with_cosine_head(plain, "head", 3.0)
    assert isinstance(plain.head, nn.Linear) and not isinstance(plain.head, models.CosineHead), "a copy"
    assert {name for name, _ in made.named_parameters() if name.startswith("head.")} == {
        "head.weight",
        "head.log_scale",
    }
    assert made(torch.randn(2, 1, 28, 28)).abs().max() <= 3 and torch.equal(
        made.blocks[0].conv.weight, plain.blocks[0].conv.weight
    )
    linear, x = models.with_linear_head(made, "head"), torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        linear.head.weight.copy_(made.head.weight), linear.head.bias.zero_()
    shortened = (1 + made.head.weight.square().sum(1)).rsqrt()
    assert torch.allclose(made(x), made.head.log_scale.exp() * linear(x) * shortened, atol=1e-5)
    for model, name in ((nn.Linear(3, 2), ""), (nn.Sequential(nn.Linear(3, 2), nn.ReLU()), "1")):
        with pytest.raises(UsageError, match=r"takes the place of an nn\.Linear"):
            models.with_cosine_head(model, name)
