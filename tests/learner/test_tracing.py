"""Traced and replayed: the same derivative as operator by operator, for every engine, kind of rule and model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.contracts.engines import TABLES, label
from tests.learner.test_steps import CASES, jobs
from torch import nn

from rbml import Episodes
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, Forward, Hypergradient, Unrolled
from rbml.strategy import Hyper, chain, dropout, momentum, sgd
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]
ENGINES = [one for row in TABLES for one in row if not isinstance(one, Forward)]


def both(net: nn.Module, tasks: Any, error: Errors, steps: int = 2, chunk: int = 32, **options: Any) -> float:
    """Return how far the traced meta-gradient is from the one operator by operator."""
    found = []
    for compile in ("no", "trace"):
        torch.manual_seed(3)  # rules with a network of their own begin at random
        learner = assemble(net.double(), steps=steps, compile=compile, chunk=chunk, verify=False, **options)
        torch.manual_seed(2)
        found.append(learner.meta_gradient(tasks))
    torch.manual_seed(2)
    again = learner.meta_gradient(tasks)  # by the graphs that are there now, in threads
    assert all(torch.equal(again.grads[name], grad) for name, grad in found[1].grads.items())
    assert torch.allclose(found[0].aux["prediction"], found[1].aux["prediction"], rtol=1e-10)
    return error(found[1].grads, found[0].grads)


def conv(norm: nn.Module | None = None, pool: nn.Module | None = None) -> nn.Module:
    """Return two blocks of a few filters: tracing takes seconds, whatever the size."""
    torch.manual_seed(0)
    first = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False), norm or nn.BatchNorm2d(2, track_running_stats=False)
    )
    second = nn.Sequential(pool or nn.AvgPool2d(2), nn.Conv2d(2, 3, 3, stride=2), nn.Tanh())
    return nn.Sequential(first, nn.Tanh(), second, nn.Flatten(), nn.Linear(3, 3))


@pytest.mark.parametrize("engine", ENGINES, ids=label)
def test_every_engine(engine: Hypergradient, pictures: Pictures, error: Errors) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))  # a record of a whole network takes seconds
    rules = chain(momentum(Hyper(0.8)), sgd(Hyper(0.1)))
    assert both(net, pictures(4, shape=(1, 3, 3)), error, 2, 2, strategy=rules, hypergradient=engine) < 1e-10


@pytest.mark.parametrize("case", ["job", "stream, segments", "first order", "a network per step"])
def test_kinds_of_rules_and_tasks(case: str, error: Errors) -> None:
    draw, strategy, engine = CASES[case]
    torch.manual_seed(1)
    net = nn.Linear(6, 3)
    assert both(net, draw(7), error, 7, 1, strategy=strategy, hypergradient=engine) < 1e-10


@pytest.mark.parametrize(
    ("steps", "options"),
    [(1, {}), (4, {}), (1, {"pool": nn.MaxPool2d(2)}), (1, {"norm": nn.GroupNorm(1, 2)}), (1, {"norm": nn.Identity()})],
    ids=str,
)
def test_convolutions(steps: int, options: Any, pictures: Pictures, error: Errors) -> None:
    tasks = pictures(4, shape=(1, 8, 8))
    rules = chain(momentum(Hyper(0.8)), sgd(Hyper(0.05, per="layer")))
    assert both(conv(**options), tasks, error, steps, 2, strategy=rules, hypergradient=Adjoint()) < 1e-10


@pytest.mark.parametrize("options", [{"statistics": "inductive"}, {"adapt": "head"}, {"stepwise": "norms"}], ids=str)
def test_options_of_the_learner(options: Any, pictures: Pictures, error: Errors) -> None:
    tasks = pictures(2, shape=(1, 8, 8))
    assert both(conv(), tasks, error, 4, strategy=sgd(Hyper(0.1)), **options) < 1e-10


def test_what_draws_draws_the_same(pictures: Pictures, error: Errors) -> None:
    rules = chain(dropout(Hyper(0.3), layers="4"), sgd(Hyper(0.1)))
    tasks = pictures(2, shape=(1, 8, 8))
    assert both(conv(), tasks, error, strategy=rules, hypergradient=Unrolled()) < 1e-10


def test_the_result_does_not_depend_on_the_number_of_threads(pictures: Pictures) -> None:
    tasks, before, found = pictures(4, shape=(1, 8, 8)), torch.get_num_threads(), []
    learner = assemble(conv().double(), sgd(Hyper(0.1)), 1, compile="trace", chunk=2, verify=False)
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            found.append(learner.meta_gradient(tasks).grads)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(grads[name], grad) for grads in found for name, grad in found[0].items())


def test_few_steps_are_one_graph_and_many_are_one_for_each_piece() -> None:
    for steps, number in ((2, 1), (9, 5)):  # the start, the outer loss and the pull to the start have graphs as well
        learner = assemble(nn.Linear(6, 3).double(), sgd(Hyper(0.1)), steps, compile="trace", verify=False)
        learner.meta_gradient(jobs(steps))
        assert learner.compiled is not None and len(learner.compiled._graphs) == number
