"""Rows whose rate falls with the examples of their class: a running mean, and the same on streams of any length."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import func

from rbml import Batch, Learner, Stream, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Forward, Hypergradient, Unrolled
from rbml.strategy import Hyper, StepInfo, chain, fresh_rows, running_mean, sgd
from rbml.tasks import generator
from rbml.tasks.base import one
from rbml.tree import Tree

Y = torch.tensor([[[2], [2], [0], [0], [3], [3]], [[1], [1], [2], [2], [0], [0]]])  # of five classes


def streams() -> Stream:
    x = torch.randn(2, 6, 1, 3, generator=generator(0)).double()
    queries = torch.randn(2, 5, 3, generator=generator(1)).double()
    return Stream(Batch(x, Y), Batch(queries, torch.arange(5).expand(2, 5)))


def test_pulled_to_every_example_a_row_is_their_running_mean() -> None:
    rule, seen = running_mean(1.0), torch.randn(7, 2, 3, generator=generator(2)).double()
    theta = {"head.weight": torch.zeros(2, 3).double()}
    for t in range(7):  # class 0 from step 0, class 1 from step 3
        pull = {"head.weight": theta["head.weight"] - seen[t]}
        at = StepInfo(t, 7, arrivals=torch.tensor([0, 3]))
        step, _ = rule.update(pull, {}, theta, {"power": {"head.weight": torch.tensor(1.0).double()}}, at)
        theta = {"head.weight": theta["head.weight"] - step["head.weight"]}
    means = torch.stack([seen[:, 0].mean(0), seen[3:, 1].mean(0)])
    assert torch.allclose(theta["head.weight"], means, rtol=1e-12)


def learner(engine: Hypergradient) -> Learner:
    torch.manual_seed(0)
    rules = chain(sgd(Hyper(0.3)), running_mean(Hyper(0.7, bounds=(0, 1))), fresh_rows())
    return assemble(models.MLP(3, 5, ()).double(), rules, 6, adapt="head", hypergradient=engine)


def test_the_learned_power_against_a_loop_of_plain_autograd(error: Callable[[Tree, Tree], float]) -> None:
    made = learner(Unrolled())
    found = made.meta_gradient(streams())
    m = {name: leaf.detach().requires_grad_() for name, leaf in made.named_parameters()}
    losses = []
    for index in range(2):
        task, order = one(streams(), index), Y[index].flatten().tolist()
        came = [order.index(row) if row in order else None for row in range(5)]
        theta = {name: m[f"model.{name}"] for name in ("head.weight", "head.bias")}
        keep = torch.tensor([float(arrived is None) for arrived in came]).double()
        theta = {"head.weight": theta["head.weight"] * keep[:, None], "head.bias": theta["head.bias"] * keep}
        for t in range(6):
            loss = F.cross_entropy(func.functional_call(made.model, theta, (task.at(t).x,)), task.at(t).y)
            grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            zero, power = torch.zeros(()).double(), torch.sigmoid(m["phi.running_mean.power"])
            share = torch.stack(
                [zero if a is None or t < a else torch.tensor(t - a + 1.0).double() ** -power for a in came]
            )
            steps = (share[:, None] * grads[0], share * grads[1])
            theta = {n: leaf - m["phi.sgd.lr"] * d for (n, leaf), d in zip(theta.items(), steps, strict=True)}
        losses.append(F.cross_entropy(func.functional_call(made.model, theta, (task.query.x,)), task.query.y))
    truth = dict(
        zip(m, torch.autograd.grad(torch.stack(losses).mean(), list(m.values()), allow_unused=True), strict=True)
    )
    assert (
        error(found.grads, {name: torch.zeros_like(m[name]) if g is None else g for name, g in truth.items()}) < 1e-10
    )


@pytest.mark.parametrize("engine", [Adjoint(), Adjoint(store="segments"), Forward()])
def test_every_exact_engine(engine: Hypergradient, error: Callable[[Tree, Tree], float]) -> None:
    found, truth = (learner(each).meta_gradient(streams()).grads for each in (engine, Unrolled()))
    assert error(found, truth) < 1e-8


def test_the_learned_power_stays_within_its_bounds_and_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="strictly inside the bounds"):
        running_mean(Hyper(1.5, bounds=(0, 1)))
    with pytest.raises(UsageError, match=r"running_mean: rows='last.\*' matches no adapted parameter"):
        made = assemble(models.MLP(3, 5, ()).double(), chain(running_mean(rows="last.*"), sgd(0.1)), 6)
        made.meta_gradient(streams())
