from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from rbml import models
from rbml.autodiff import module as functional
from rbml.errors import UsageError


def net() -> nn.Module:
    return models.Conv4(3, filters=3).double()


def x(n: int = 6) -> Tensor:
    return torch.randn(n, 1, 12, 12, dtype=torch.float64)


def test_the_isolated_copy_shares_nothing_with_the_original() -> None:
    module = net().train()
    before = copy.deepcopy(module.state_dict())
    own = functional.isolated(module)
    functional.call(own, {}, x())
    with torch.no_grad():
        for leaf in [*own.parameters(), *own.buffers()]:
            leaf.zero_()
    assert all(torch.equal(leaf, before[name]) for name, leaf in module.state_dict().items())
    assert all(layer.training for layer in module.modules())
    assert all(layer.track_running_stats for _, layer in functional.batch_norms(module))


def test_without_statistics_batch_norm_uses_the_batch_and_updates_nothing() -> None:
    module, pictures = net(), x()
    own = functional.isolated(module)
    before = copy.deepcopy(own.state_dict())
    found = functional.call(own, {}, pictures)
    assert torch.allclose(found, module.train()(pictures), rtol=1e-12)
    assert all(torch.equal(leaf, before[name]) for name, leaf in own.state_dict().items())


def test_with_statistics_a_prediction_does_not_depend_on_its_neighbours() -> None:
    own, pictures = functional.isolated(net()), x()
    seen = functional.statistics_of(own, {}, x(9))
    together = functional.call(own, {}, pictures, seen)
    alone = torch.cat([functional.call(own, {}, pictures[i : i + 1], seen) for i in range(6)])
    assert torch.allclose(together, alone, rtol=1e-12)
    assert not torch.allclose(together, functional.call(own, {}, pictures), rtol=1e-2)


def test_a_batch_normalised_with_its_own_statistics_is_the_batch_normalised_by_itself() -> None:
    own, pictures = functional.isolated(net()), x()
    seen = functional.statistics_of(own, {}, pictures)
    assert set(seen) == {f"blocks.{b}.norm.running_{kind}" for b in range(4) for kind in ("mean", "var")}
    assert torch.allclose(functional.call(own, {}, pictures, seen), functional.call(own, {}, pictures), rtol=1e-10)


def test_measuring_leaves_no_hook_behind() -> None:
    own = functional.isolated(net())
    functional.statistics_of(own, {}, x())
    assert not any(layer._forward_pre_hooks for layer in own.modules())


def test_given_parameters_are_used_and_the_others_are_the_modules_own() -> None:
    own, pictures = functional.isolated(net()), x()
    bias = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    shifted = functional.call(own, {"head.bias": bias}, pictures)
    expected = functional.call(own, {}, pictures) - own.head.bias + bias
    assert torch.allclose(shifted, expected, rtol=1e-12)


def test_running_statistics_are_those_of_the_module() -> None:
    module = net().train()
    for _ in range(3):
        module(x(20))
    own = functional.isolated(module)
    stored = functional.running_statistics(own)
    pictures = x()
    assert torch.allclose(functional.call(own, {}, pictures, stored), module.eval()(pictures), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_layer_that_never_kept_statistics(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).to(dtype)
    assert functional.without_statistics(functional.isolated(module)) == ["1"]
    own, rows = functional.isolated(module), torch.randn(5, 4, dtype=dtype)
    assert torch.allclose(functional.call(own, {}, rows), module(rows))
    assert own[1].running_mean.dtype == dtype
    seen = functional.statistics_of(own, {}, rows)
    assert torch.allclose(functional.call(own, {}, rows, seen), module(rows), atol=1e-6)
    assert functional.without_statistics(functional.isolated(net())) == []


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 5), (7, 3, 4, 4), (7, 3, 2, 2, 2)])
def test_statistics_over_every_axis_but_the_channels(shape: tuple[int, ...]) -> None:
    layer = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](3)
    values = torch.randn(shape)
    seen = functional.statistics_of(functional.isolated(nn.Sequential(layer)), {}, values)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    assert torch.allclose(seen["0.running_mean"], values.mean(axes), atol=1e-6)
    assert torch.allclose(seen["0.running_var"], values.var(axes, correction=0), atol=1e-6)


def test_a_layer_that_is_used_twice_has_no_one_statistic() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.norm(self.norm(x) ** 2)
            return output

    with pytest.raises(UsageError, match="norm is used more than once per pass"):
        functional.statistics_of(functional.isolated(Twice()), {}, torch.randn(5, 3))


def test_dropout_is_switched_off_and_says_so() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="dropout is switched off"):
        own = functional.isolated(module)
    rows = torch.randn(5, 4)
    assert torch.equal(functional.call(own, {}, rows), own[0](rows))
    functional.isolated(nn.Sequential(nn.Dropout(0.0)))  # no warning: it would do nothing anyway
