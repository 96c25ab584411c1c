"""One compiled step for all steps: the same derivative as operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from shutil import which
from typing import Any

import pytest
import torch
from torch import nn

from rbml import Batch, Job, Stream
from rbml.algorithms.options import assemble
from rbml.autodiff import compiled
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, FirstOrder, Forward
from rbml.strategy import (
    Hyper,
    adam,
    attenuate,
    chain,
    cosine,
    exponential,
    fresh_rows,
    inverse_time,
    learned_optimizer,
    metal,
    momentum,
    nadam,
    noise,
    piecewise,
    polynomial,
    sgd,
    warmup,
    weight_decay,
)
from rbml.tree import Tree

compiler = pytest.mark.skipif(which("g++") is None and which("clang++") is None, reason="needs a C++ compiler")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def jobs(steps: int) -> Any:
    x, y = torch.randn(20, 6).double(), torch.randint(3, (20,))
    return Job.of(Batch(x[:14], y[:14]), Batch(x[14:], y[14:]), 4, [3, 4])


def streams(steps: int) -> Any:
    x, y = torch.randn(2, steps, 2, 6).double(), torch.randint(3, (2, steps, 2))
    return Stream(Batch(x, y), Batch(x[:, 0], y[:, 0]))


CASES: dict[str, Any] = {
    "job": (jobs, chain(weight_decay(Hyper(1e-3)), momentum(Hyper(0.8)), sgd(Hyper(0.1, per_step=True))), Adjoint()),
    "stream, segments": (streams, chain(adam(), sgd(Hyper(0.05, per="layer"))), Adjoint(store="segments")),
    "first order": (jobs, chain(noise(Hyper(0.01)), sgd(Hyper(0.1)), cosine(), warmup(3), piecewise()), FirstOrder()),
    "stream, momentum": (streams, chain(momentum(Hyper(0.8)), sgd(Hyper(0.1))), Adjoint()),
    "dampened": (jobs, chain(momentum(0.5, dampening=0.3), sgd(0.1), polynomial(), inverse_time()), Adjoint()),
    "nadam": (streams, chain(nadam(), sgd(0.1), exponential(every=2), piecewise(boundaries=(2, 4))), Adjoint()),
    "rows that begin anew": (streams, chain(sgd(Hyper(0.1)), fresh_rows("mean", rows="2.*")), Adjoint()),
    "a network per step": (jobs, chain(metal(hidden=4), sgd(Hyper(0.1))), Adjoint()),
    "attenuated": (jobs, chain(sgd(0.1), attenuate()), Adjoint()),
    "learned optimizer": (jobs, learned_optimizer(), Adjoint()),
}


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Collect what is traced, without the compiler that takes its time."""
    graphs: list[Any] = []
    monkeypatch.setattr(compiled, "_native", lambda graph, leaves, threads: graphs.append(graph) or graph)
    return graphs


def both(case: str, steps: int = 7, adapt: str = "*") -> tuple[Any, Any]:
    """Return the meta-gradient operator by operator, and by compiled steps."""
    draw, strategy, engine = CASES[case]
    found = []
    for compile in ("no", "step"):
        torch.manual_seed(1)
        tasks = draw(steps)
        learner = assemble(net(), strategy, steps, compile=compile, hypergradient=engine, verify=False, adapt=adapt)
        torch.manual_seed(2)
        found.append(learner.meta_gradient(tasks))
    return found[0], found[1]


def agree(one: Any, other: Any, error: Callable[[Tree, Tree], float]) -> bool:
    near = torch.allclose(one.aux["prediction"], other.aux["prediction"], rtol=1e-9)
    return error(one.grads, other.grads) < 1e-9 and near and torch.allclose(one.loss, other.loss, rtol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_traced_steps_serve_all(case: str, traced: list[Any], error: Callable[[Tree, Tree], float]) -> None:
    plain, stepped = both(case)
    assert agree(stepped, plain, error)
    assert len(traced) == 4, "a step and an adjoint step: five at once, and the two that are left one by one"


def test_steps_that_are_left_need_no_graph_where_blocks_are_all(
    traced: list[Any], error: Callable[[Tree, Tree], float]
) -> None:
    plain, stepped = both("job", steps=8)
    assert agree(stepped, plain, error) and len(traced) == 2, "four at once"


def test_large_steps_are_taken_one_by_one_and_tasks_by_themselves(
    traced: list[Any], error: Callable[[Tree, Tree], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbml.learner.apart.LARGE", 1.0)
    monkeypatch.setattr("rbml.learner.apart.SMALL", 1.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        plain, stepped = both("job")
        again = both("stream, momentum", adapt="head")
    finally:
        torch.set_num_threads(threads)
    assert agree(stepped, plain, error) and agree(again[1], again[0], error)
    assert len(traced) == 4, "a step and an adjoint step of each"


@compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("adapt", ["*", "head"])
def test_and_compiled_it_is_the_same(adapt: str, error: Callable[[Tree, Tree], float]) -> None:
    """With the head alone, the features are written into by their derivative: memory that once was not there."""
    plain, stepped = both("job" if adapt == "*" else "stream, momentum", adapt=adapt)
    assert agree(stepped, plain, error)


@pytest.mark.parametrize("engine", [Forward(), Adjoint(keep=2), Adjoint(store="reverse")])
def test_other_engines_are_refused(engine: Any) -> None:
    learner = assemble(net(), chain(momentum(0.5), sgd(0.1)), 3, compile="step", hypergradient=engine, verify=False)
    with pytest.raises(UsageError, match="compile='step' compiles the pieces of Adjoint"):
        learner.meta_gradient(jobs(3))
