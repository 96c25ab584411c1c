"""Windows along one run: against the same truncated objective written with ``detach``, on streams and jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from rbml import Batch, Job, Stream
from rbml.algorithms.options import assemble
from rbml.errors import BlindError, UsageError
from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient, Unrolled, Windowed
from rbml.learner import frozen
from rbml.strategy import Hyper, chain, fresh_rows, momentum, sgd
from rbml.tasks import generator
from rbml.tasks.base import one, part
from rbml.tree import Tree

T = 7


def streams() -> Stream:
    x = torch.randn(2, T, 2, 4, generator=generator(0)).double()
    y = torch.randint(3, (2, T, 2), generator=generator(1))
    query = Batch(torch.randn(2, 5, 4, generator=generator(2)).double(), torch.arange(5).expand(2, -1) % 3)
    return Stream(Batch(x, y), query)


def jobs() -> Job:
    x, y = torch.randn(17, 4, generator=generator(0)).double(), torch.arange(17) % 3
    return Job.of(Batch(x[:12], y[:12]), Batch(x[12:], y[12:]), 5, [3, 4])


def learner(engine: Hypergradient | None, adapt: str = "*", *rules: Any) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    strategy = chain(momentum(Hyper(0.6)), sgd(Hyper(0.2, per_step=True)), *rules)
    return assemble(net, strategy, T, adapt=adapt, hypergradient=engine)


@pytest.mark.parametrize("tasks", [streams, jobs])
@pytest.mark.parametrize("engine", [Unrolled(), Adjoint(), Adjoint(store="segments")])
def test_it_is_backpropagation_with_the_carry_detached_between_windows(
    engine: Hypergradient, tasks: Callable[[], Any], error: Callable[[Tree, Tree], float]
) -> None:
    made, stack = learner(Windowed(3, engine)), tasks()
    found = made.meta_gradient(part(stack, 1, 2))
    m = {name: leaf.detach().requires_grad_() for name, leaf in made.named_parameters()}
    task, losses = one(stack, 1), []
    theta = {name.removeprefix("model."): leaf for name, leaf in m.items() if name.startswith("model.")}
    buffer = {name: torch.zeros_like(leaf) for name, leaf in theta.items()}
    for t in range(T):
        if t in (3, 6):
            losses.append(F.cross_entropy(functional_call(made.model, theta, (task.query.x,)), task.query.y))
            theta = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
            buffer = {name: leaf.detach() for name, leaf in buffer.items()}
        batch = task.at(t)
        loss = F.cross_entropy(functional_call(made.model, theta, (batch.x,)), batch.y)
        grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        buffer = {n: m["phi.momentum.decay"] * buffer[n] + g for n, g in zip(theta, grads, strict=True)}
        theta = {n: leaf - m["phi.sgd.lr"][t] * buffer[n] for n, leaf in theta.items()}
    losses.append(F.cross_entropy(functional_call(made.model, theta, (task.query.x,)), task.query.y))
    total = torch.stack(losses).mean()
    truth = dict(zip(m, torch.autograd.grad(total, list(m.values())), strict=True))
    assert torch.allclose(found.loss, total, rtol=1e-12) and error(found.grads, truth) < 1e-10
    assert not [name for name in found.aux if name.startswith("carry")]


def test_a_window_as_long_as_the_run_is_the_engine_itself(error: Callable[[Tree, Tree], float]) -> None:
    found, truth = (learner(engine).meta_gradient(streams()) for engine in (Windowed(T + 3), Adjoint()))
    assert error(found.grads, truth.grads) < 1e-12 and torch.equal(found.loss, truth.loss)


def test_the_body_runs_once_and_rows_begin_anew(
    error: Callable[[Tree, Tree], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = learner(Windowed(2), "head", fresh_rows(rows="2.*"))
    assert frozen.frozen_body(made.bind(one(streams(), 0)), made.hypergradient) == "2"
    found = made.meta_gradient(streams()).grads
    monkeypatch.setattr("rbml.learner.meta.frozen_body", lambda *_: None)
    assert error(found, made.meta_gradient(streams()).grads) < 1e-9


def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match="every, the steps of a window, must be at least 1, not 0"):
        Windowed(0)
    with pytest.raises(BlindError, match=r"FirstOrder is blind to|Reptile"):
        from rbml.hypergrad import Reptile

        learner(Windowed(2, Reptile())).meta_gradient(streams())
    assert learner(Windowed(2, FirstOrder())).meta_gradient(streams()).loss.isfinite()
