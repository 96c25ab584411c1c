"""The default engine: all graphs where they fit, and the same derivative where they do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import func, nn

from rbml import models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient, Unrolled
from rbml.inner import Inner
from rbml.learner import Execution, Learner, graphs
from rbml.strategy import Hyper, sgd
from rbml.tasks import Batch, Episodes
from rbml.tasks.base import one


def learner_of(engine: Hypergradient | None = None, steps: int = 3, **options: object) -> Learner:
    torch.manual_seed(0)
    model = models.MLP(4, 3, (5,), nn.Tanh).double()
    return assemble(model, sgd(Hyper(0.1)), steps, hypergradient=engine, **options)  # type: ignore[arg-type]


def episodes(tasks: int = 3) -> Episodes:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, tasks, 6, 4, dtype=torch.float64, generator=source)
    y = torch.arange(6).remainder(3).expand(tasks, 6)
    return Episodes(Batch(x[0], y), Batch(x[1], y))


def chosen(learner: Learner, tasks: int = 3, apart: bool = False) -> Hypergradient:
    def inner() -> Inner:
        return learner.inner(one(episodes(), 0))

    return graphs.with_graphs(learner, learner.hypergradient, inner, tasks, (), apart)


@pytest.mark.parametrize(
    "engine", [Adjoint(keep=1), Adjoint(store="segments"), Adjoint(hvp="reverse"), FirstOrder(), Unrolled()], ids=repr
)
def test_an_engine_that_says_what_it_keeps_stays(engine: Hypergradient) -> None:
    assert chosen(learner_of(engine)) == engine


def test_the_default_keeps_all_graphs_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of()
    assert chosen(learner) == Unrolled()
    assert chosen(learner_of(Adjoint(window=2))) == Unrolled(window=2)
    step = graphs.step_bytes(learner.inner(one(episodes(), 0)))
    monkeypatch.setattr(graphs, "BUDGET", 9 * step)
    assert chosen(learner_of()) == Unrolled()
    assert chosen(learner_of(), tasks=4) == Adjoint()
    assert chosen(learner_of(steps=4)) == Adjoint()
    assert chosen(learner_of(Adjoint(window=3), steps=1000)) == Unrolled(window=3)


def test_a_task_may_keep_more_if_it_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    step = graphs.step_bytes(learner_of().inner(one(episodes(), 0)))
    monkeypatch.setattr(graphs, "BUDGET", 2 * step)
    monkeypatch.setattr(graphs, "BUDGET_OF_ONE", 3 * step)
    assert chosen(learner_of(), tasks=1) == Unrolled()
    assert chosen(learner_of(), tasks=1, apart=True) == Adjoint(), "others run beside it, on threads of their own"


def test_a_compiled_learner_keeps_adjoint() -> None:
    learner = learner_of()
    learner.run(Execution(compile="step"))
    assert chosen(learner) == Adjoint()


def test_the_derivative_is_the_same_either_way(
    monkeypatch: pytest.MonkeyPatch, error: Callable[[object, object], float]
) -> None:
    kept = learner_of().meta_gradient(episodes())
    monkeypatch.setattr(graphs, "BUDGET", 0)
    monkeypatch.setattr(graphs, "BUDGET_OF_ONE", 0)
    again = learner_of().meta_gradient(episodes())
    assert error(again.grads, kept.grads) < 1e-13


def test_the_bytes_of_a_step_are_those_that_autograd_keeps() -> None:
    learner = learner_of()
    inner = learner.inner(one(episodes(), 0))
    theta = inner.start({}).theta
    values = sum(leaf.nbytes for leaf in theta.values())
    assert graphs.step_bytes(inner) > 2 * values
    # One product keeps its two factors; the parameter itself is not counted.
    x = torch.ones(7, 5, dtype=torch.float64)
    assert graphs.kept_bytes(lambda point: x @ point["w"], {"w": torch.ones(5, 3, dtype=torch.float64)}) == x.nbytes
    assert func.grad(inner.objective)(theta, {}, 0).keys() == theta.keys()
