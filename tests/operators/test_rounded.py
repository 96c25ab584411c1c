"""Large products in bfloat16, and everything else as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import rbml
from rbml.devices import CPU, computing, type_of_products
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Hypergradient, Unrolled
from rbml.learner import Execution
from rbml.operators import Differentiable
from rbml.strategy import sgd
from rbml.tree import Tree


def wide() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 3))


def tasks() -> rbml.Episodes:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, 18, 6, generator=generator), torch.arange(18).expand(2, 18) % 3
    return rbml.Episodes(rbml.Batch(x[:, :9], y[:, :9]), rbml.Batch(x[:, 9:], y[:, 9:]))


def gradients(precision: str, engine: Hypergradient, execution: Execution) -> Tree:
    learner = rbml.Learner(wide(), sgd(0.1), 2, hypergradient=engine, execution=execution)
    with computing(precision, CPU):
        return learner.meta_gradient(tasks()).grads


@pytest.mark.parametrize("engine", [Unrolled(), Adjoint(keep=1)])
@pytest.mark.parametrize("execution", [Execution(), Execution(vectorise=False), Execution(compile="trace")])
def test_a_meta_gradient_is_off_by_the_rounding_alone(engine: Hypergradient, execution: Execution) -> None:
    exact, found = (gradients(precision, engine, execution) for precision in ("float32", "bfloat16"))
    off = torch.cat([(found[name] - exact[name]).flatten() for name in exact]).norm()
    error = float(off / torch.cat([leaf.flatten() for leaf in exact.values()]).norm())
    assert 1e-5 < error < 0.02
    assert all(leaf.dtype == torch.float32 for leaf in found.values())


def test_the_same_learner_traces_each_precision_by_itself() -> None:
    learner = rbml.Learner(wide(), sgd(0.1), 1, execution=Execution(compile="trace"))
    exact = learner.meta_gradient(tasks()).loss
    with computing("bfloat16", CPU):
        rounded = learner.meta_gradient(tasks()).loss
    assert exact != rounded and learner.meta_gradient(tasks()).loss == exact


@pytest.mark.parametrize(
    ("layer", "x", "changes"),
    [
        (nn.Linear(128, 128), torch.randn(4, 128), True),
        (nn.Linear(640, 64), torch.randn(4, 640), False),
        (nn.Linear(128, 128).double(), torch.randn(4, 128).double(), False),
        (nn.Conv2d(64, 64, 3, padding="same"), torch.randn(2, 64, 5, 5), True),
        (nn.Conv2d(3, 64, 3), torch.randn(2, 3, 5, 5), False),
    ],
    ids=["a large layer", "a head", "double precision", "a convolution", "the first convolution"],
)
def test_large_products_of_single_precision_are_rounded(layer: nn.Module, x: Tensor, changes: bool) -> None:
    with Differentiable():
        exact = layer(x)
        with computing("bfloat16", CPU):
            found = layer(x)
    assert found.dtype == exact.dtype and torch.equal(found, exact) != changes
    assert torch.allclose(found, exact, atol=0.05)


def test_the_precision_ends_with_its_context_and_tf32_needs_cuda() -> None:
    with computing("bfloat16", CPU):
        assert type_of_products() == torch.bfloat16
    assert type_of_products() is None
    with pytest.raises(UsageError, match="tf32 is a way of computing on cuda"), computing("tf32", CPU):
        pass
    with pytest.raises(UsageError, match="precision"), computing("float8", CPU):
        pass
