"""Streams and training jobs: against a plain double backward, by every exact engine, and one by one as in a stack."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from rbml import Batch, Job, Stream
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, FirstOrder, Forward, Hypergradient, Unrolled, Windowed
from rbml.strategy import Hyper, Rule, chain, l2, momentum, sgd, zero
from rbml.tasks.base import moved, one, part
from rbml.training.continual import follow
from rbml.tree import Tree, add, scale

T = 6


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def streams() -> Stream:
    torch.manual_seed(1)
    x, y = torch.randn(2, T, 2, 4).double(), torch.randint(3, (2, T, 2))
    return Stream(Batch(x, y), Batch(torch.randn(2, 5, 4).double(), torch.randint(3, (2, 5))))


def jobs() -> Job:
    torch.manual_seed(1)
    x, y = torch.randn(17, 4).double(), torch.randint(3, (17,))
    return Job.of(Batch(x[:12], y[:12]), Batch(x[12:], y[12:]), 5, [3, 4])


TASKS: dict[str, Callable[[], Any]] = {"stream": streams, "job": jobs}


def learner_of(engine: Hypergradient | None = None, steps: int = T) -> Any:
    rules = chain(l2(Hyper(0.1)), momentum(Hyper(0.6)), sgd(Hyper(0.2, per_step=True)))
    return assemble(net(), rules, steps, hypergradient=engine)


def plainly(learner: Any, task: Any) -> tuple[Tensor, Tree]:
    """Return loss and gradients by a loop of ``autograd.grad``, which knows nothing of rbml but the task's data."""
    m = {name: leaf.detach().requires_grad_() for name, leaf in learner.named_parameters()}
    theta = {name.removeprefix("model."): leaf for name, leaf in m.items() if name.startswith("model.")}
    strength, decay, rates = m["phi.l2.strength"], m["phi.momentum.decay"], m["phi.sgd.lr"]
    buffer = {name: torch.zeros_like(leaf) for name, leaf in theta.items()}
    for t in range(T):
        batch = task.at(t)
        loss = F.cross_entropy(functional_call(learner.model, theta, (batch.x,)), batch.y)
        loss = loss + 0.5 * strength * sum((leaf**2).sum() for leaf in theta.values())
        grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        buffer = {name: decay * buffer[name] + grad for name, grad in zip(theta, grads, strict=True)}
        theta = {name: leaf - rates[t] * buffer[name] for name, leaf in theta.items()}
    outer = F.cross_entropy(functional_call(learner.model, theta, (task.query.x,)), task.query.y)
    return outer, dict(zip(m, torch.autograd.grad(outer, list(m.values())), strict=True))


@pytest.mark.parametrize("kind", TASKS)
def test_it_is_a_plain_double_backward(kind: str, error: Callable[[Tree, Tree], float]) -> None:
    learner, tasks = learner_of(), TASKS[kind]()
    found = learner.meta_gradient(tasks)
    truths = [plainly(learner, one(tasks, index)) for index in range(2)]
    assert torch.allclose(found.loss, torch.stack([loss for loss, _ in truths]).mean(), rtol=1e-12)
    assert error(found.grads, scale(add(truths[0][1], truths[1][1]), 0.5)) < 1e-10


@pytest.mark.parametrize("engine", [Adjoint(keep=0), Adjoint(store="segments"), Adjoint(store="reverse"), Forward()])
@pytest.mark.parametrize("kind", TASKS)
def test_every_exact_engine(kind: str, engine: Hypergradient, error: Callable[[Tree, Tree], float]) -> None:
    tasks = TASKS[kind]()
    rules = chain(momentum(Hyper(0.6)), sgd(Hyper(0.2, per_step=True)))
    found, truth = (
        assemble(net(), rules, T, hypergradient=one).meta_gradient(tasks).grads for one in (engine, Unrolled())
    )
    assert error(found, truth) < 1e-8


@pytest.mark.parametrize("kind", TASKS)
def test_a_stack_is_each_alone(kind: str, error: Callable[[Tree, Tree], float]) -> None:
    learner, tasks = learner_of(), TASKS[kind]()
    whole = learner.meta_gradient(tasks)
    alone = [learner.meta_gradient(part(tasks, index, index + 1)) for index in range(2)]
    assert error(whole.grads, scale(add(alone[0].grads, alone[1].grads), 0.5)) < 1e-12
    assert torch.allclose(whole.aux["loss"], torch.cat([single.aux["loss"] for single in alone]), rtol=1e-13)


@pytest.mark.parametrize("kind", TASKS)
def test_evaluation_takes_the_same_steps(kind: str) -> None:
    learner, tasks = learner_of(), TASKS[kind]()
    found = learner.evaluate(tasks)
    assert found.loss.shape == (2, T + 1) and found.accuracy is not None
    assert torch.allclose(found.loss[:, -1].mean(), learner.meta_gradient(tasks).loss, rtol=1e-12)


def test_a_stream_is_never_cut_silently() -> None:
    for steps in (T - 1, T + 1):
        with pytest.raises(UsageError, match=rf"data for {T} inner steps, and the learner takes {steps}"):
            learner_of(steps=steps).meta_gradient(streams())


def test_heads_made_of_the_whole_stream_and_first_order(error: Callable[[Tree, Tree], float]) -> None:
    learner = assemble(net(), chain(zero(), sgd(Hyper(0.2))), T, hypergradient=FirstOrder())
    grads = learner.meta_gradient(moved(streams(), torch.float64)).grads
    assert float(grads["model.0.weight"].norm()) > 0 and float(grads["phi.sgd.lr"].abs()) > 0


class Watch:
    """A rule that changes nothing, and looks at the memory of the process at every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def rule(self) -> Rule:
        def update(direction: Tree, state: Tree, *_: Any) -> tuple[Tree, Tree]:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            return direction, state

        return Rule("watch", {}, update)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read from Linux")
@pytest.mark.parametrize("kind", ["stream", "job", "follow"])
def test_memory_is_flat_over_many_steps(kind: str) -> None:
    """A step changes 1.2 MiB of weights: keeping all would take 360 MiB (10,000 steps: benchmarks/memory_long.py)."""
    many, watch = 300, Watch()
    x, y = torch.randn(1, many, 1, 300), torch.arange(many)[None, :, None] * 3 // many
    tasks: Any = Stream(Batch(x, y), Batch(x[:, ::100, 0], y[:, ::100, 0]))
    if kind == "job":
        tasks = Job.of(Batch(x[0, :, 0], y[0, :, 0]), Batch(x[0, :3, 0], y[0, :3, 0]), 4, [1])
    model, rules = nn.Sequential(nn.Linear(300, 1000), nn.Tanh(), nn.Linear(1000, 3)), chain(watch.rule(), sgd(0.01))
    learner = assemble(model, rules, many, hypergradient=Windowed(10), verify=False)
    if kind == "follow":
        follow(learner, tasks, (2, 3))
    else:
        learner.meta_gradient(tasks)
    assert len(watch.seen) >= many
    assert max(watch.seen) - max(watch.seen[: len(watch.seen) // 6]) < 60, "memory grows with the steps"
