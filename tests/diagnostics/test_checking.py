"""``rbml.check`` finds what is right, what is blind, what is approximate and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import rbml
from rbml import Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, FirstOrder, MetaGradient, Unrolled
from rbml.inner import Inner
from rbml.strategy import Hyper, Strategy, chain, l2, noise, sgd
from rbml.tasks.base import Stream
from rbml.tree import Tree, scale

Pictures = Callable[..., Episodes]


def net(activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    return models.MLP(144, 3, (4,), activation)


def strategy() -> Strategy:
    return chain(l2(Hyper(0.1)), noise(0.1), sgd(Hyper(0.2, per="layer")))


def kinds(learner: Learner, episodes: Any) -> dict[str, str]:
    verdict = rbml.check(learner, episodes)
    assert {one.parameter for one in verdict.findings} == {n for n, p in learner.named_parameters() if p.requires_grad}
    return {one.parameter: one.verdict for one in verdict.findings}


def test_what_is_right_agrees(pictures: Pictures) -> None:
    """In float32 and with random parts: the check is made in float64 with the same numbers for every engine."""
    learner = assemble(net(), strategy(), steps=3)
    verdict = rbml.check(learner, pictures(dtype=torch.float32))
    assert verdict.passed and {one.verdict for one in verdict.findings} == {"agrees"}
    assert all(one.engine < 1e-12 and one.difference < 1e-7 for one in verdict.findings)
    assert all(isinstance(far, float) and far < 1e-12 for far in verdict.engines.values())
    assert next(learner.parameters()).dtype == torch.float32, "the learner is left as it was"
    assert "agrees" in str(verdict) and "phi.sgd.lr/head.*" in str(verdict)


def test_relu_with_batch_norm_is_not_held_against_an_engine(pictures: Pictures) -> None:
    learner = assemble(models.Conv4(3, filters=3), sgd(Hyper(0.4)), steps=5)
    assert set(kinds(learner, pictures(dtype=torch.float32)).values()) <= {"agrees", "not smooth"}


def test_blind_and_approximate(pictures: Pictures) -> None:
    learner = assemble(net(), chain(l2(Hyper(0.1)), sgd(Hyper(0.2))), steps=2, hypergradient=FirstOrder())
    found = kinds(learner, pictures())
    assert found.pop("phi.l2.strength") == "blind"
    assert set(found.values()) == {"approximate"}
    assert not rbml.check(learner, pictures()).passed


@dataclass(frozen=True)
class Wrong:
    """An engine that claims to be exact and is off by a thousandth."""

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        right = Unrolled()(inner, m)
        return right._replace(grads=scale(right.grads, 1.001))


def test_a_wrong_engine_differs(pictures: Pictures) -> None:
    learner = assemble(net(), sgd(Hyper(0.2)), steps=2, hypergradient=Wrong())
    assert set(kinds(learner, pictures()).values()) == {"differs"}


class Detached(torch.autograd.Function):
    """The identity with a wrong derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None: ...

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        return 1.5 * grad

    @staticmethod
    def jvp(ctx: object, tangent: torch.Tensor) -> torch.Tensor:
        return 1.5 * tangent


class Lying(nn.Module):
    """A model whose own backward is wrong: every engine believes it, central differences do not."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(144, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(Detached.apply(torch.tanh(self.body(x.flatten(1)))))
        return output


def test_a_wrong_derivative_of_the_model_differs(pictures: Pictures) -> None:
    found = kinds(assemble(Lying(), sgd(Hyper(0.2)), steps=1), pictures())
    assert found["model.body.weight"] == "differs"


def test_what_has_no_effect(pictures: Pictures) -> None:
    model = net()
    model.idle = nn.Parameter(torch.ones(2))  # type: ignore[assignment]
    learner = assemble(model, sgd(0.2), steps=1, adapt="head.*")
    assert kinds(learner, pictures())["model.idle"] == "no effect"


def test_an_operator_without_second_derivative_is_named(pictures: Pictures) -> None:
    class Distances(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(144, 4)
            self.head = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.body(x.flatten(1))
            output: torch.Tensor = self.head(torch.cdist(h, torch.eye(3, 4, dtype=h.dtype)))
            return output

    verdict = rbml.check(assemble(Distances(), sgd(0.2), steps=1, hypergradient=Adjoint()), pictures())
    assert {one.verdict for one in verdict.findings} == {"not differentiable"} and not verdict.passed
    assert "PyTorch has no second derivative of _cdist_backward" in str(verdict)


class Attention(nn.Module):
    """Attention whose key has a bias of its own: softmax takes it away, so that its derivative is zero."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.head = nn.Linear(12, 4), nn.Linear(12, 4), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.squeeze(1)
        weights = torch.softmax(self.query(rows) @ self.key(rows).mT, -1)
        output: torch.Tensor = self.head((weights @ rows).mean(1))
        return output


def test_a_zero_up_to_rounding_is_no_effect(pictures: Pictures) -> None:
    learner = assemble(Attention(), sgd(0.3), steps=2)
    grads = learner.double().meta_gradient(pictures()).grads
    assert 0 < float(grads["model.key.bias"].norm()) < 1e-15
    found = kinds(learner, pictures())
    assert found.pop("model.key.bias") == "no effect"
    assert set(found.values()) == {"agrees"}


def test_tasks_of_every_kind(pictures: Pictures) -> None:
    """A stream, whose steps see one batch each."""
    support, query = pictures(shots=4)
    steps = rbml.Batch(support.x.unflatten(1, (3, 4)), support.y.unflatten(1, (3, 4)))
    assert set(kinds(assemble(net(), sgd(Hyper(0.2)), steps=3), Stream(steps, query)).values()) == {"agrees"}


@dataclass(frozen=True)
class Failing:
    """An engine that an operator of the model stops."""

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        raise RuntimeError("no forward derivative of this")


def test_an_engine_that_fails_is_not_called_blind(pictures: Pictures) -> None:
    learner = assemble(net(), sgd(0.2), hypergradient=Failing())
    assert set(kinds(learner, pictures()).values()) == {"not differentiable"}
    assert "no forward derivative of this" in str(rbml.check(learner, pictures()))


def test_nothing_to_learn_is_refused(pictures: Pictures) -> None:
    learner = assemble(net(), sgd(0.2))
    learner.requires_grad_(False)
    with pytest.raises(rbml.RbmlError, match="no parameter that is learned"):
        rbml.check(learner, pictures())
