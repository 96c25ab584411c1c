"""Rows that begin anew: when, with what, against a loop by hand, in every exact engine, compiled or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import func

from rbml import Batch, Stream, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Forward, Hypergradient, Unrolled
from rbml.strategy import Hyper, chain, fresh_rows, momentum, only, settle, sgd
from rbml.tasks import generator
from rbml.tasks.base import arrivals, one
from rbml.tree import Tree

Y = torch.tensor([[[2], [2], [0], [0], [3], [3]], [[1], [1], [2], [2], [0], [0]]])  # of five classes


def streams() -> Stream:
    x = torch.randn(2, 6, 1, 3, generator=generator(0)).double()
    return Stream(
        Batch(x, Y), Batch(torch.randn(2, 5, 3, generator=generator(1)).double(), torch.arange(5).expand(2, 5))
    )


def learner(engine: Hypergradient | None = None, to: str = "zero", when: str = "arrival", **options: Any) -> Any:
    torch.manual_seed(0)
    rules = chain(momentum(Hyper(0.5)), sgd(Hyper(0.3)), fresh_rows(to, when))  # type: ignore[arg-type]
    return assemble(models.MLP(3, 5, (4,), torch.nn.Tanh).double(), rules, 6, hypergradient=engine, **options)


def test_when_classes_come() -> None:
    assert arrivals(one(streams(), 0), 5).tolist() == [2, -1, 0, 4, -1]
    both = func.vmap(lambda task: arrivals(task, 5))(streams())
    assert both.tolist() == [[2, -1, 0, 4, -1], [4, 0, 2, -1, -1]]
    masked = streams().steps._replace(mask={"example": (Y != 2)})
    assert arrivals(one(Stream(masked, streams().query), 0), 5).tolist() == [2, -1, -1, 4, -1]


@pytest.mark.parametrize("when", ["arrival", "start"])
@pytest.mark.parametrize("to", ["zero", "mean"])
def test_it_is_a_loop_that_sets_the_rows(to: str, when: str, error: Callable[[Tree, Tree], float]) -> None:
    made, tasks = learner(to=to, when=when), streams()
    found = made.meta_gradient(tasks)
    m = {name: leaf.detach().requires_grad_() for name, leaf in made.named_parameters()}
    losses = []
    for index in range(2):
        task = one(tasks, index)
        theta = {name.removeprefix("model."): leaf for name, leaf in m.items() if name.startswith("model.")}
        buffer = {name: torch.zeros_like(leaf) for name, leaf in theta.items()}
        order = list(dict.fromkeys(Y[index].flatten().tolist()))
        for t in range(6):
            now = {"arrival": {0: order[:1], 2: order[1:2], 4: order[2:]}, "start": {0: order}}[when].get(t, [])
            if now:
                coming = order[order.index(now[-1]) + 1 :]
                others = [row for row in range(5) if row not in now and row not in coming]
                for name in ("head.weight", "head.bias"):
                    rows = list(theta[name])
                    start = torch.stack([rows[row] for row in others]).mean(0) if to == "mean" else 0 * rows[0].detach()
                    theta = theta | {name: torch.stack([start if r in now else rows[r] for r in range(5)])}
            loss = F.cross_entropy(func.functional_call(made.model, theta, (task.at(t).x,)), task.at(t).y)
            grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            buffer = {n: m["phi.momentum.decay"] * buffer[n] + g for n, g in zip(theta, grads, strict=True)}
            theta = {n: leaf - m["phi.sgd.lr"] * buffer[n] for n, leaf in theta.items()}
        losses.append(F.cross_entropy(func.functional_call(made.model, theta, (task.query.x,)), task.query.y))
    truth = dict(zip(m, torch.autograd.grad(torch.stack(losses).mean(), list(m.values())), strict=True))
    assert error(found.grads, truth) < 1e-10


@pytest.mark.parametrize("adapt", ["*", "head"])
@pytest.mark.parametrize("engine", [Adjoint(keep=1), Adjoint(store="segments"), Forward()])
def test_every_exact_engine(engine: Hypergradient, adapt: str, error: Callable[[Tree, Tree], float]) -> None:
    found, truth = (learner(each, "mean", adapt=adapt).meta_gradient(streams()).grads for each in (engine, Unrolled()))
    assert error(found, truth) < 1e-8


def test_rows_that_settle_learn_around_the_arrival_of_their_class_alone(error: Callable[[Tree, Tree], float]) -> None:
    torch.manual_seed(0)
    net, tasks = models.MLP(3, 5, ()).double(), streams()
    learner = assemble(net, chain(sgd(Hyper(0.3)), settle(Hyper(2.0))), 6, adapt="head")
    found = learner.meta_gradient(tasks)
    m = {name: leaf.detach().requires_grad_() for name, leaf in learner.named_parameters()}
    losses = []
    for index in range(2):
        task, order = one(tasks, index), Y[index].flatten().tolist()
        theta = {name: m[f"model.{name}"] for name in ("head.weight", "head.bias")}
        for t in range(6):
            loss = F.cross_entropy(func.functional_call(net, theta, (task.at(t).x,)), task.at(t).y)
            grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            ages = [t - order.index(row) if row in order[: t + 1] else None for row in range(5)]
            zero = torch.zeros(()).double()
            share = torch.stack([zero if a is None else torch.exp(-a / m["phi.settle.tau"]) for a in ages])
            rates = {"head.weight": share[:, None], "head.bias": share}
            theta = {n: p - m["phi.sgd.lr"] * rates[n] * g for (n, p), g in zip(theta.items(), grads, strict=True)}
        losses.append(F.cross_entropy(func.functional_call(net, theta, (task.query.x,)), task.query.y))
    truth = dict(zip(m, torch.autograd.grad(torch.stack(losses).mean(), list(m.values())), strict=True))
    assert error(found.grads, truth) < 1e-10
    with pytest.raises(UsageError, match=r"settle: rows='last.\*' matches no adapted parameter"):
        assemble(net, chain(settle(rows="last.*"), sgd(0.1)), 6).meta_gradient(tasks)


def test_drawn_rows_are_those_of_a_new_layer_and_the_same_twice() -> None:
    made = learner(to="drawn", when="start")
    task = one(streams(), 0)
    starts = [made.inner(task, key=torch.tensor(key)).start({}).theta for key in (3, 3, 4)]
    rows = [start["head.weight"][[0, 2, 3]] for start in starts]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert rows[0].abs().max() <= 0.5 and rows[0].std() > 0.1  # bound: 1 / sqrt(4)
    assert torch.equal(starts[0]["head.weight"][1], made.model.head.weight[1]), "a class that never comes keeps its row"
    assert starts[0]["head.bias"][[0, 2, 3]].abs().max() == 0


def test_it_can_be_restricted_and_refuses_what_it_cannot_do() -> None:
    net = models.MLP(3, 5, (4,)).double()
    weights = assemble(net, chain(only("head.weight", fresh_rows(when="start")), sgd(0.1)), 6)
    start = weights.inner(one(streams(), 0)).start({}).theta
    assert start["head.weight"][0].abs().max() == 0 and start["head.bias"][0].abs() > 0
    with pytest.raises(UsageError, match=r"rows='last.\*' matches no adapted parameter; there are body"):
        assemble(net, chain(fresh_rows(rows="last.*"), sgd(0.1)), 6).meta_gradient(streams())
    with pytest.raises(UsageError, match="fresh_rows overwrites parameters, which cannot be undone"):
        learner(Adjoint(store="reverse")).meta_gradient(streams())
    with pytest.raises(UsageError, match="fresh_rows needs targets that are classes"):
        real = Stream(*(part._replace(y=torch.zeros(*part.y.shape, 5).double()) for part in streams()))
        assemble(net, chain(fresh_rows(), sgd(0.1)), 6, loss=lambda p, y: ((p - y) ** 2).mean()).meta_gradient(real)
