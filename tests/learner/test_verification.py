"""The first meta-gradient is verified: what is silently wrong, or silently zero, is an error that says what to do."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml import Batch, Episodes, UnsoundError, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Implicit, Reptile, Unrolled
from rbml.strategy import chain, proximal, sgd

Pictures = Callable[..., Episodes]


class Skewed(torch.autograd.Function):
    """Twice the input, with a forward derivative that is three times the tangent: two derivatives that differ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None: ...

    @staticmethod
    def backward(ctx: object, bar: Tensor) -> Tensor:
        return 2 * bar

    @staticmethod
    def jvp(ctx: object, tangent: Tensor) -> Tensor:
        return 3 * tangent


class Hidden(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Skewed.apply(torch.tanh(self.first(x))))


class Elsewhere(nn.Module):
    """A model that computes with copies of its weights, as a Keras layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.copy = [parameter.detach().clone() for parameter in self.head.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (leaf.to(x) for leaf in self.copy)
        return F.linear(x, weight, bias) + 0 * self.head(x).detach()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_two_derivatives_that_differ_are_found(pictures: Pictures, dtype: torch.dtype) -> None:
    tasks = pictures(shape=(4,), dtype=dtype)
    learner = assemble(Hidden().to(dtype), sgd(0.5), 2)
    with pytest.raises(UnsoundError, match=r"disagrees with.*model\.first\.weight.*Unrolled\(\)") as caught:
        learner.meta_gradient(tasks)
    assert "model.first.weight" in caught.value.parameters
    learner.hypergradient = Unrolled()
    learner.meta_gradient(tasks)
    assemble(Hidden().to(dtype), sgd(0.5), 2, verify=False).meta_gradient(tasks)


def test_weights_that_the_call_does_not_see_are_found(pictures: Pictures) -> None:
    for engine in (Adjoint(), Unrolled()):
        learner = assemble(Elsewhere().double(), sgd(0.1), 2, hypergradient=engine)
        with pytest.raises(UnsoundError, match=r"exactly zero.*verify=False"):
            learner.meta_gradient(pictures(shape=(4,)))


def test_engines_that_are_approximate_by_design_are_left_alone(pictures: Pictures) -> None:
    for engine, strategy in ((Reptile(), chain(sgd(0.1))), (Implicit(), chain(proximal(1.0), sgd(0.1)))):
        learner = assemble(models.MLP(4, 3).double(), strategy, 2, hypergradient=engine)
        assert learner.meta_gradient(pictures(shape=(4,))).loss > 0


def test_it_happens_once_for_each_shape(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    from rbml.learner import meta

    calls = []
    monkeypatch.setattr(meta, "verify", lambda *given: calls.append(given))
    learner = assemble(models.MLP(4, 3).double(), sgd(0.1), 2)
    for shots in (1, 1, 2, 1):
        learner.meta_gradient(pictures(shape=(4,), shots=shots))
    assert len(calls) == 2


def test_a_missing_forward_derivative_names_the_remedy(pictures: Pictures) -> None:
    class NoForward(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x * x

        @staticmethod
        def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, bar):  # type: ignore[no-untyped-def]
            return 2 * ctx.saved_tensors[0] * bar

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return NoForward.apply(self.head(x))

    tasks = pictures(shape=(4,))
    with pytest.raises(UsageError, match=r'forward derivative.*hvp="reverse"'):
        assemble(Net().double(), sgd(0.1), 2).meta_gradient(tasks)
    reverse = assemble(Net().double(), sgd(0.1), 2, hypergradient=Adjoint(hvp="reverse"))
    assert reverse.meta_gradient(tasks).loss > 0


def test_it_costs_little(pictures: Pictures) -> None:
    """Two meta-gradients of one task and two steps: far less than one of a run of 100 steps."""
    tasks = Episodes(*(Batch(batch.x[:1], batch.y[:1]) for batch in pictures(shape=(4,))))
    learner = assemble(models.MLP(4, 3, (8,), nn.Tanh).double(), sgd(0.1), 100)
    began = time.perf_counter()
    learner.meta_gradient(tasks)
    first = time.perf_counter() - began
    began = time.perf_counter()
    learner.meta_gradient(tasks)
    assert first < 5 * (time.perf_counter() - began) + 0.5
