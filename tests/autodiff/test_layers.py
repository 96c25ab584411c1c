"""Norms, heads and tied weights of odd networks, found by what they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rbml import models
from rbml.autodiff.layers import head_of, head_parameters, norm_layers, norm_parameters, tied
from rbml.autodiff.module import isolated


class ScaleNorm(nn.Module):
    """A user's own norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x / (1 + x.square().mean(-1, keepdim=True)).sqrt()


class Residual(nn.Module):
    """A block of a residual network, its layers defined in an order that is not that of their use."""

    def __init__(self, fc: nn.Module | None = None) -> None:
        super().__init__()
        self.fc = fc or nn.Linear(4, 3)
        self.bn = nn.BatchNorm1d(4)
        self.inner = nn.Linear(4, 4)
        self.own = ScaleNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc(x + self.own(torch.relu(self.bn(self.inner(x)))))
        return output


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.out(x).squeeze(-1)
        return output


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.out(torch.tanh(self.embedding(x).mean(1)))
        return output


def x(width: int = 4) -> Tensor:
    return torch.randn(5, width)


def test_the_head_is_the_linear_layer_whose_outputs_are_the_models() -> None:
    assert head_of(isolated(Residual()), x()) == "fc", "it is defined first and used last"
    assert head_of(Residual()) == "inner", "without an example there is only the order of definition"
    assert head_of(isolated(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))), x()) == "2"
    assert head_of(isolated(Squeezed()), x()) == "out"
    assert head_of(isolated(models.Conv4(3, filters=3)), torch.randn(2, 1, 28, 28)) == "head"
    assert head_of(isolated(nn.Linear(4, 3)), x()) == "", "the model is its own head"


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(4, 3), nn.Sigmoid()), nn.Sequential(nn.Flatten()), Residual(nn.Flatten())]
)
def test_a_model_may_have_no_head(model: nn.Module) -> None:
    assert head_of(isolated(model), x()) is None
    assert head_parameters(isolated(model), x()) == []


def test_looking_for_the_head_leaves_nothing_behind() -> None:
    own = isolated(Residual())
    head_of(own, x())
    assert not any(layer._forward_hooks for layer in own.modules())


def test_a_tied_head_goes_by_the_name_that_named_parameters_has() -> None:
    assert tied(Tied()) == [("embedding.weight", "out.weight")]
    own = isolated(Tied())
    assert head_of(own, torch.zeros(2, 3, dtype=torch.int64)) == "out"
    assert head_parameters(own, torch.zeros(2, 3, dtype=torch.int64)) == ["embedding.weight", "out.bias"]
    assert tied(Residual()) == []


def test_norms_are_found_by_type_and_by_the_name_of_their_class() -> None:
    assert norm_layers(Residual()) == ["bn", "own"]
    assert norm_parameters(Residual()) == ["bn.weight", "bn.bias", "own.gain"]
    kinds = [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.InstanceNorm1d(4, affine=True), nn.BatchNorm2d(4)]
    assert norm_layers(nn.Sequential(*kinds, nn.InstanceNorm1d(4), nn.Linear(4, 4))) == ["0", "1", "2", "3", "4"]
    assert norm_layers(nn.Sequential(nn.Linear(4, 4))) == []
