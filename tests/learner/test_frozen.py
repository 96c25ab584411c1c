"""The body that runs once: the same derivatives as at every step, for every kind of task and statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rbml import Batch, Episodes, Job, Learner, Stream, models
from rbml.algorithms.options import assemble
from rbml.autodiff import compiled
from rbml.hypergrad import Adjoint, FirstOrder, Unrolled
from rbml.learner import frozen, meta
from rbml.strategy import Hyper, chain, dropout, label_smoothing, momentum, prototype, proximal, ridge, sgd
from rbml.tasks.base import one
from rbml.tree import Tree

STRATEGIES: dict[str, Any] = {
    "momentum": lambda: chain(momentum(Hyper(0.5)), sgd(Hyper(0.2, per="element"))),
    "terms": lambda: chain(label_smoothing(), proximal(Hyper(0.3)), sgd(Hyper(0.2))),
    "prototype": lambda: chain(prototype(0.3), proximal(Hyper(0.3)), sgd(Hyper(0.2))),
    "ridge": lambda: chain(ridge(), sgd(Hyper(0.2))),
    "gate": lambda: chain(dropout(Hyper(0.3)), sgd(0.2)),
}


def both(learner: Learner, tasks: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return the meta-gradient with the body once, and with the body at every step."""
    found = []
    for once in (True, False):
        with monkeypatch.context() as patch:
            if not once:
                patch.setattr(meta, "frozen_body", lambda *_: None)
            torch.manual_seed(3)
            found.append(learner.meta_gradient(tasks))
    return found[0], found[1]


@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_is_what_the_whole_model_gives(
    strategy: str,
    statistics: Any,
    pictures: Callable[..., Episodes],
    roughened: Callable[[nn.Module], nn.Module],
    error: Callable[[Tree, Tree], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner = assemble(
        roughened(models.Conv4(3, filters=3, size=12)), STRATEGIES[strategy](), 3, adapt="head", statistics=statistics
    )
    tasks = pictures()
    assert frozen.frozen_body(learner.bind(one(tasks, 0)), learner.hypergradient) == "head"
    once, always = both(learner, tasks, monkeypatch)
    assert error(once.grads, always.grads) < 1e-9 and torch.allclose(once.loss, always.loss, rtol=1e-12)
    assert torch.allclose(once.aux["prediction"], always.aux["prediction"], rtol=1e-10)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("kind", ["stream", "job"])
def test_streams_and_jobs(
    kind: str,
    norm: Any,
    roughened: Callable[[nn.Module], nn.Module],
    error: Callable[[Tree, Tree], float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = roughened(models.Conv4(3, filters=3, size=12, norm=norm))
    learner = assemble(model, STRATEGIES["momentum"](), 4, adapt="head", hypergradient=Adjoint(keep=2))
    x, y = torch.randn(2, 4, 3, 1, 12, 12).double(), torch.randint(3, (2, 4, 3))
    query = Batch(x[:, 0], y[:, 0])
    tasks: Any = Stream(Batch(x, y), query)
    if kind == "job":
        tasks = Job.of(Batch(x[0].flatten(0, 1), y[0].flatten(0, 1)), Batch(x[1, 0], y[1, 0]), 3, [1, 2])
    layer = frozen.frozen_body(learner.bind(one(tasks, 0)), learner.hypergradient)
    assert layer == (None if (kind, norm) == ("job", "batch") else "head")
    once, always = both(learner, tasks, monkeypatch)
    assert error(once.grads, always.grads) < 1e-9


@pytest.mark.parametrize("strategy", ["momentum", "terms", "prototype", "gate"])
def test_a_head_of_several_layers(
    strategy: str, error: Callable[[Tree, Tree], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = models.OMLNet(3, size=28, filters=2, width=4).double()
    learner = assemble(model, STRATEGIES[strategy](), 4, adapt="hidden.*|head.*")
    x, y = torch.randn(2, 4, 3, 1, 28, 28).double(), torch.randint(3, (2, 4, 3))
    tasks = Stream(Batch(x, y), Batch(x[:, 0].flip(3), y[:, 0]))
    assert frozen.frozen_body(learner.bind(one(tasks, 0)), learner.hypergradient) == "hidden"
    once, always = both(learner, tasks, monkeypatch)
    assert error(once.grads, always.grads) < 1e-9
    assert {"model.body.0.weight", "model.hidden.bias"} <= set(once.grads)


def test_where_a_head_of_several_layers_is_none(pictures: Callable[..., Episodes]) -> None:
    task = one(pictures(shape=(4,)), 0)

    def once(*layers: nn.Module, adapt: str = "2.*|4.*") -> str | None:
        learner = assemble(nn.Sequential(*layers).double(), sgd(0.1), 2, adapt=adapt)
        return frozen.frozen_body(learner.bind(task), Adjoint())

    a, b, c = nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 3)
    assert once(a, nn.Tanh(), b, nn.ReLU(), c) == "2"
    assert once(a, nn.Tanh(), b, nn.ReLU(), c, adapt="4.*") == "4"
    assert once(a, nn.Tanh(), b, nn.ReLU(), c, adapt="*") is None, "there is no body"
    assert once(a, nn.Tanh(), b, models.dropout.Dropout(0.5), c) is None, "what it drops is drawn at every step"
    assert once(a, nn.Tanh(), b, nn.BatchNorm1d(6), c) is None, "it looks at all examples"


def test_where_the_body_cannot_run_once(pictures: Callable[..., Episodes]) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x)).tanh()

    task = one(pictures(shape=(4,)), 0)
    after = assemble(Odd().double(), sgd(0.1), 2, adapt="head")
    assert frozen.frozen_body(after.bind(task), Unrolled()) is None, "something comes after the head"
    whole = assemble(models.MLP(4, 3).double(), sgd(0.1), 2)
    assert frozen.frozen_body(whole.bind(task)) is None, "everything is adapted"
    head = assemble(models.MLP(4, 3).double(), sgd(0.1), 2, adapt="head")
    assert frozen.frozen_body(head.bind(task), FirstOrder()) is None, "the engine leaves a way out"
    assert frozen.frozen_body(head.bind(task), Adjoint()) == "head"


def test_the_body_is_called_once(pictures: Callable[..., Episodes]) -> None:
    calls = 0

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.head(torch.tanh(self.body(x)))

    tasks = pictures(shape=(4,))
    learner = assemble(Counted().double(), sgd(0.1), 50, adapt="head", verify=False)
    for use in (lambda: learner.meta_gradient(tasks), lambda: learner.evaluate(tasks)):
        calls = 0
        use()
        assert calls < 8


@pytest.mark.parametrize("kind", ["stream", "job"])
def test_by_one_step_for_all(kind: str, error: Callable[[Tree, Tree], float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_native", lambda graph, leaves, threads: graph)  # the trace, without the compiler
    x, y = torch.randn(2, 4, 3, 4).double(), torch.randint(3, (2, 4, 3))
    query = Batch(x[:, 0], y[:, 0])
    tasks: Any = Stream(Batch(x, y), query)
    if kind == "job":
        tasks = Job.of(Batch(x[0].flatten(0, 1), y[0].flatten(0, 1)), Batch(x[1, 0], y[1, 0]), 3, [1, 2])
    found = []
    for compile in ("no", "step"):
        torch.manual_seed(0)
        model = models.MLP(4, 3, (5,), nn.Tanh).double()
        learner = assemble(model, STRATEGIES["terms"](), 4, adapt="head", compile=compile, verify=False)
        found.append(learner.meta_gradient(tasks))
    assert error(found[1].grads, found[0].grads) < 1e-11
    assert torch.allclose(found[1].loss, found[0].loss, rtol=1e-13)
