"""``rbml.explain``: what is measured, and what is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import rbml
from rbml import Episodes, Learner, algorithms, models
from rbml.algorithms.options import assemble
from rbml.diagnostics import explaining as costs
from rbml.diagnostics.explaining import amount, measure
from rbml.hypergrad import Adjoint, Forward
from rbml.strategy import Hyper, chain, momentum, sgd

Pictures = Callable[..., Episodes]


def long(steps: int = 400) -> Learner:
    return assemble(models.MLP(144, 3, (8,), nn.Tanh).double(), chain(momentum(0.9), sgd(Hyper(0.1))), steps)


def test_sizes_are_those_of_the_problem(pictures: Pictures) -> None:
    learner = long(7)
    size = measure(learner, pictures(tasks=5))
    theta = sum(leaf.numel() for leaf in learner.model.parameters())
    assert (size.meta, size.steps, size.tasks, size.chunk, size.chunks) == (theta + 1, 7, 5, 5, 1)
    assert size.theta == 8 * theta and size.carry == 2 * size.theta
    hidden = 6 * 8 * 8  # six support examples, eight units, in float64
    assert hidden < size.activations < 20 * hidden + 6 * 144 * 8 and size.graph > size.activations
    assert size.gradient > 0 and size.product > 0


def test_the_less_memory_there_is_the_less_is_kept(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_seconds", lambda work, device: 1.0)
    episodes = pictures(tasks=2, shots=40)
    free = rbml.explain(long(), episodes)
    assert isinstance(free.chosen.engine, Adjoint) and free.chosen.engine.store == "all"
    kept = {row.name: row.memory for row in free.rows}
    segments, reverse = kept["Adjoint(store='segments')"], kept["Adjoint(store='reverse', exact=True)"]
    assert reverse < segments < kept["Adjoint(keep=1)"] < kept["Unrolled()"]
    assert rbml.explain(long(), episodes, memory=1.01 * segments).chosen.engine == Adjoint(store="segments")
    tight = rbml.explain(long(), episodes, memory=1.01 * reverse)
    assert tight.chosen.engine == Adjoint(store="reverse", exact=True)
    none = rbml.explain(long(), episodes, memory=1)
    assert none.chosen.exact and "lower the chunk" in none.why and "over the budget" in str(none)


def test_one_number_of_phi_is_for_forward_mode(pictures: Pictures) -> None:
    learner = long(50)
    learner.model.requires_grad_(False)
    found = rbml.explain(learner, pictures(tasks=2), memory=3e5)
    assert isinstance(found.chosen.engine, Forward | Adjoint)
    forward = next(row for row in found.rows if isinstance(row.engine, Forward))
    assert forward.memory < next(row.memory for row in found.rows if row.name == "Adjoint(keep=1)")


def test_what_an_engine_cannot_is_said(pictures: Pictures) -> None:
    found = rbml.explain(algorithms.meta_sgd(models.MLP(144, 3, (4,)).double(), steps=2), pictures())
    notes = {row.name: row.refusal for row in found.rows}
    assert "blind to model.body.1.weight" in notes["Implicit()"] and "more" in notes["Implicit()"]
    assert "undoing" in notes["Adjoint(store='reverse', exact=True)"]
    assert "undoing" in notes["Adjoint(store='reverse')"] and "blind" in notes["Sama()"]
    assert not found.chosen.refusal and not notes["Adjoint(keep=1)"]


class Squared(torch.autograd.Function):
    """The square, with first and second derivatives backwards and none forwards."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x**2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad


class Activation(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = Squared.apply(x)
        return output


def test_an_operator_without_forward_derivative_is_measured_backwards(pictures: Pictures) -> None:
    learner = assemble(models.MLP(144, 3, (4,), Activation).double(), sgd(0.1), steps=3)
    found = rbml.explain(learner, pictures(tasks=2))
    notes = {row.name: row.refusal for row in found.rows}
    assert notes["Adjoint(keep=1)"] and not notes["Unrolled()"]
    assert found.chosen.name == "Unrolled()" and found.size.product > 0


def test_the_choice_can_be_put_to_work(pictures: Pictures) -> None:
    learner, episodes = long(5), pictures()
    truth = learner.meta_gradient(episodes).grads
    learner.hypergradient = rbml.explain(learner, episodes, memory=1).chosen.engine
    found = learner.meta_gradient(episodes).grads
    assert all(torch.allclose(found[name], leaf, rtol=1e-6, atol=1e-12) for name, leaf in truth.items())


def test_amounts_in_words() -> None:
    assert [amount(n) for n in (0, 1023, 1024, 5 * 2**20, 2**31)] == ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "2.0 GiB"]
