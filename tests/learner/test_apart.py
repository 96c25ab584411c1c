"""Tasks whose operators are large run apart, and their results are those of tasks that run side by side."""

from __future__ import annotations

from collections.abc import Callable
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rbml
from rbml import models
from rbml.hypergrad import Adjoint, FirstOrder, Forward, Hypergradient, Unrolled
from rbml.learner import apart
from rbml.operators.alone import is_alone, is_in_threads
from rbml.strategy import Hyper, sgd

Pictures = Callable[..., rbml.Episodes]


pytestmark = pytest.mark.usefixtures("two_threads")


compiler = pytest.mark.skipif(which("g++") is None and which("clang++") is None, reason="needs a C++ compiler")
SEEN: list[tuple[bool, bool]] = []


class Looks(nn.Module):
    """A small network that says how it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append((is_alone(), is_in_threads()))
        prediction: Tensor = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return prediction


def learner_of(engine: Hypergradient | None = None, statistics: str = "transductive", **execution: Any) -> rbml.Learner:
    torch.manual_seed(0)
    return rbml.Learner(
        Looks().double(), sgd(Hyper(0.1)), 2, hypergradient=engine, statistics=statistics,  # type: ignore[arg-type]
        execution=rbml.Execution(**execution),
    )  # fmt: skip


def runs_apart(learner: rbml.Learner, tasks: rbml.Episodes) -> bool:
    return apart.apart(learner, tasks, learner.predict(learner.ways), learner.ways)


def test_operators_of_small_networks_are_shared_by_tasks(pictures: Pictures) -> None:
    tasks = pictures(shape=(1, 28, 28), dtype=torch.float32)
    assert not runs_apart(rbml.Learner(models.Conv4(3, filters=16)), tasks)
    assert runs_apart(rbml.Learner(models.Conv4(3, filters=96)), tasks)
    small = pictures(shots=1, dtype=torch.float32, shape=(1, 14, 14))
    assert not runs_apart(rbml.Learner(models.Conv4(3, filters=48)), small)


def test_operations_are_counted_per_product(pictures: Pictures) -> None:
    with apart._Count() as count:
        nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))(torch.zeros(7, 10))
    assert count.calls == 2 and count.operations == 2 * 7 * (10 * 20 + 20 * 5)


@pytest.mark.parametrize(
    ("execution", "expected"),
    [({}, True), ({"compile": "whole"}, True), ({"vectorise": True}, False), ({"compile": "trace"}, False)],
)
def test_it_is_chosen_where_nothing_else_was_asked_for(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch, execution: dict[str, Any], expected: bool
) -> None:
    monkeypatch.setattr(apart, "LARGE", 0.0)
    assert runs_apart(learner_of(**execution), pictures()) == expected


@pytest.mark.parametrize(
    "engine", [None, Adjoint(keep=1), Adjoint(keep=0), Unrolled(), FirstOrder(), Forward()], ids=repr
)
@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
def test_the_meta_gradient_is_that_of_tasks_side_by_side(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch, engine: Hypergradient | None, statistics: str
) -> None:
    tasks = pictures(tasks=5, shape=(1, 8, 8))
    truth = learner_of(engine, statistics, vectorise=True).meta_gradient(tasks)
    monkeypatch.setattr(apart, "LARGE", 0.0)
    learner = learner_of(engine, statistics)
    learner.meta_gradient(tasks)  # verified once, in this thread
    SEEN.clear()
    found = learner.meta_gradient(tasks)
    assert any(in_threads for _, in_threads in SEEN)
    torch.testing.assert_close(found.grads, truth.grads, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.aux, truth.aux, rtol=1e-9, atol=1e-12)


def test_where_only_the_head_is_adapted_it_is_the_same(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = pictures(tasks=5, shape=(1, 8, 8))
    torch.manual_seed(0)
    learner = rbml.Learner(Looks().double(), sgd(Hyper(0.1)), 2, initial=rbml.learner.Initial(adapt="head"))
    truth = learner.meta_gradient(tasks)
    monkeypatch.setattr(apart, "LARGE", 0.0)
    learner.run(rbml.Execution())
    found = learner.meta_gradient(tasks)
    torch.testing.assert_close(found.grads, truth.grads, rtol=1e-9, atol=1e-12)


def test_it_is_bit_for_bit_the_same_on_one_thread_and_on_two(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "LARGE", 0.0)
    tasks, found = pictures(tasks=5, shape=(1, 8, 8)), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(learner_of().meta_gradient(tasks))
    torch.testing.assert_close(found[0].grads, found[1].grads, rtol=0, atol=0)


@compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, when its compiler is imported
def test_the_graph_of_one_task_compiled_is_the_same_and_runs_in_threads(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "LARGE", 0.0)
    tasks, other = pictures(tasks=3, shape=(1, 8, 8)), pictures(tasks=3, shape=(1, 8, 8))
    plain, learner = learner_of(), learner_of(compile="whole")
    truth = plain.meta_gradient(tasks)
    SEEN.clear()
    found = [learner.meta_gradient(tasks)]
    assert (True, False) in SEEN, "traced by torch.autograd, as one task by itself"
    SEEN.clear()
    torch.set_num_threads(1)
    found.append(learner.meta_gradient(tasks))
    assert learner.compiled is not None and len(learner.compiled._graphs) == 1
    torch.testing.assert_close(found[0].grads, truth.grads, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found[0].aux, truth.aux, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found[1].grads, found[0].grads, rtol=0, atol=0)
    torch.testing.assert_close(
        learner.meta_gradient(other).grads, plain.meta_gradient(other).grads, rtol=1e-12, atol=1e-14
    )


def test_evaluation_is_that_of_tasks_side_by_side(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = pictures(tasks=5, shape=(1, 8, 8))
    truth = learner_of().evaluate(tasks)
    monkeypatch.setattr(apart, "LARGE", 0.0)
    SEEN.clear()
    found = learner_of().evaluate(tasks)
    assert any(in_threads for _, in_threads in SEEN)
    torch.testing.assert_close(found.loss, truth.loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.prediction, truth.prediction, rtol=1e-9, atol=1e-12)
    assert not found.prediction.requires_grad


def test_what_is_learned_stays_a_parameter_of_the_learner(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "LARGE", 0.0)
    learner = learner_of()
    optimizer = torch.optim.SGD(learner.parameters(), 0.1)
    before = learner.meta_gradient(pictures()).loss
    for _ in range(3):
        optimizer.zero_grad()
        learner.backward(pictures())
        optimizer.step()
    assert learner.meta_gradient(pictures()).loss < before  # threads see the parameters as they are now
