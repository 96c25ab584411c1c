"""Traced and replayed: the same derivative as operator by operator, for every engine, kind of rule and model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.contracts.engines import TABLES, label
from tests.learner.test_steps import CASES, jobs
from torch import nn

from rbml import Episodes, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, Forward, Hypergradient, Unrolled
from rbml.strategy import Hyper, adam, chain, dropout, momentum, sgd, weight_decay
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]
ENGINES = [one for row in TABLES for one in row if not isinstance(one, Forward)]


def both(net: nn.Module, tasks: Any, error: Errors, steps: int = 2, chunk: int = 32, **options: Any) -> float:
    """Return how far the traced meta-gradient is from the one operator by operator."""
    found = []
    for compile in ("no", "trace"):
        learner = assemble(net.double(), steps=steps, compile=compile, chunk=chunk, verify=False, **options)
        torch.manual_seed(2)
        found.append(learner.meta_gradient(tasks))
    torch.manual_seed(2)
    again = learner.meta_gradient(tasks)  # by the graphs that are there now, in threads
    assert all(torch.equal(again.grads[name], grad) for name, grad in found[1].grads.items())
    assert torch.allclose(found[0].aux["prediction"], found[1].aux["prediction"], rtol=1e-10)
    return error(found[1].grads, found[0].grads)


def conv4(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    return models.Conv4(3, filters=4, activation=nn.Tanh, size=16, **options)


@pytest.mark.parametrize("engine", ENGINES, ids=label)
def test_every_engine(engine: Hypergradient, pictures: Pictures, error: Errors) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(25, 4), nn.Tanh(), nn.Linear(4, 3))
    rules = chain(weight_decay(Hyper(1e-3)), momentum(Hyper(0.8)), sgd(Hyper(0.1)))
    assert both(net, pictures(3, shape=(1, 5, 5)), error, 2, 2, strategy=rules, hypergradient=engine) < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_rule_and_task(case: str, error: Errors) -> None:
    draw, strategy, engine = CASES[case]
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    assert both(net, draw(7), error, 7, 1, strategy=strategy, hypergradient=engine) < 1e-10


@pytest.mark.parametrize(
    ("steps", "options"),
    [(1, {}), (4, {}), (1, {"pool": "max"}), (1, {"norm": "group"}), (1, {"norm": "none"})],
    ids=str,
)
def test_convolutions(steps: int, options: Any, pictures: Pictures, error: Errors) -> None:
    rules = chain(adam(), sgd(Hyper(0.05, per="layer")))
    tasks = pictures(3, shape=(1, 16, 16))
    assert both(conv4(**options), tasks, error, steps, 2, strategy=rules, hypergradient=Adjoint()) < 1e-10


@pytest.mark.parametrize("options", [{"statistics": "inductive"}, {"adapt": "head"}, {"stepwise": "norms"}], ids=str)
def test_options_of_the_learner(options: Any, pictures: Pictures, error: Errors) -> None:
    assert both(conv4(), pictures(3, shape=(1, 16, 16)), error, 4, 2, strategy=sgd(Hyper(0.1)), **options) < 1e-10


def test_what_draws_draws_the_same(pictures: Pictures, error: Errors) -> None:
    rules = chain(dropout(Hyper(0.3)), sgd(Hyper(0.1)))
    tasks = pictures(3, shape=(1, 16, 16))
    assert both(conv4(dropout=0.2), tasks, error, strategy=rules, hypergradient=Unrolled()) < 1e-10


def test_the_result_does_not_depend_on_the_number_of_threads(pictures: Pictures) -> None:
    tasks, before, found = pictures(5, shape=(1, 16, 16)), torch.get_num_threads(), []
    learner = assemble(conv4().double(), sgd(Hyper(0.1)), 1, compile="trace", chunk=2, verify=False)
    try:
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            found.append(learner.meta_gradient(tasks).grads)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(grads[name], grad) for grads in found for name, grad in found[0].items())


def test_few_steps_are_one_graph_and_many_are_two() -> None:
    for steps, number in ((2, 1), (9, 5)):  # the start, the outer loss and the pull to the start have graphs as well
        learner = assemble(nn.Linear(6, 3).double(), sgd(Hyper(0.1)), steps, compile="trace", verify=False)
        learner.meta_gradient(jobs(steps))
        assert learner.compiled is not None and len(learner.compiled._graphs) == number
