"""Tasks of unequal ways, shots and queries in one stack, by masks: each counts as it does by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rbml import Batch, Episode, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, Unrolled
from rbml.strategy import (
    Hyper,
    adam,
    chain,
    confidence,
    dropout,
    l2,
    label_smoothing,
    ml3,
    momentum,
    prototype,
    proximal,
    ridge,
    sgd,
    weight_net,
    zero,
)
from rbml.tasks.padding import stack
from rbml.tree import Tree, add, norm, scale

SIZES = ((3, 2, 3), (2, 3, 1), (5, 1, 2))
STRATEGIES: dict[str, Any] = {
    "momentum": lambda: chain(momentum(Hyper(0.5)), sgd(Hyper(0.1, per="layer"))),
    "adam": lambda: chain(adam(), sgd(Hyper(0.02))),
    "prototype": lambda: chain(prototype(0.1), sgd(Hyper(0.1))),
    "ridge": lambda: chain(ridge(), sgd(Hyper(0.1))),
    "zero": lambda: chain(zero(), l2(Hyper(0.1)), sgd(0.1)),
    "smoothing": lambda: chain(label_smoothing(), confidence(), sgd(Hyper(0.1))),
    "pull": lambda: chain(proximal(Hyper(0.3)), sgd(0.1)),
    "learned loss": lambda: chain(ml3(hidden=(4,)), sgd(0.1)),
    "learned weights": lambda: chain(weight_net(hidden=(4,)), sgd(0.1)),
}


def tasks(shape: tuple[int, ...]) -> list[Episode]:
    torch.manual_seed(4)

    def batch(ways: int, each: int) -> Batch:
        return Batch(torch.randn(ways * each, *shape).double(), torch.arange(ways).repeat_interleave(each))

    return [Episode(batch(ways, shots), batch(ways, queries)) for ways, shots, queries in SIZES]


def alone(task: Episode) -> Episode:
    return Episode(*(Batch(batch.x[None], batch.y[None]) for batch in task))


@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_stack_is_each_by_itself(
    strategy: str,
    statistics: Any,
    roughened: Callable[[nn.Module], nn.Module],
) -> None:
    model = roughened(models.Conv4(5, filters=3, size=12))
    learner = assemble(model, STRATEGIES[strategy](), 2, statistics=statistics, verify=False)
    given = tasks((1, 12, 12))
    together = learner.meta_gradient(stack(given))
    singles = [learner.meta_gradient(alone(task), ways=ways) for task, (ways, *_) in zip(given, SIZES, strict=True)]
    total: Tree = {}
    for single in singles:
        total = add(total, scale(single.grads, 1 / len(singles)))
    size = float(norm(total))  # some leaves are zero but for rounding
    assert all(float((together.grads[name] - leaf).norm()) < 1e-11 * size for name, leaf in total.items())
    for index, (single, (ways, _, queries)) in enumerate(zip(singles, SIZES, strict=True)):
        assert torch.allclose(together.aux["loss"][index], single.aux["loss"][0], rtol=1e-12, atol=0)
        prediction = together.aux["prediction"][index, : ways * queries, :ways]
        assert torch.allclose(prediction, single.aux["prediction"][0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("engine", [Unrolled(), Adjoint(keep=0), Adjoint(store="segments")])
def test_by_every_engine(
    engine: Any, roughened: Callable[[nn.Module], nn.Module], error: Callable[[Tree, Tree], float]
) -> None:
    learner = assemble(
        roughened(models.Conv4(5, filters=3, size=12)), STRATEGIES["momentum"](), 2, hypergradient=engine
    )
    given = stack(tasks((1, 12, 12)))
    found = learner.meta_gradient(given)
    learner.hypergradient = Unrolled()
    assert error(found.grads, learner.meta_gradient(given).grads) < 1e-10


def test_what_the_padding_holds_does_not_matter(roughened: Callable[[nn.Module], nn.Module]) -> None:
    learner = assemble(
        roughened(models.Conv4(5, filters=3, size=12)), chain(dropout(Hyper(0.2)), sgd(0.1)), 2, verify=False
    )
    given = stack(tasks((1, 12, 12)))

    def filled(batch: Batch, value: float) -> Batch:
        counts = batch.mask["example"][..., None, None, None]
        return batch._replace(x=torch.where(counts, batch.x, value))

    found = []
    for value in (0.0, 7.0):
        torch.manual_seed(0)
        found.append(learner.meta_gradient(Episode(filled(given.support, value), filled(given.query, value))))
    assert torch.allclose(found[0].loss, found[1].loss, rtol=1e-12)
    assert all(torch.allclose(found[0].grads[name], leaf, rtol=1e-9) for name, leaf in found[1].grads.items())


def test_metrics_and_evaluation_leave_padding_out() -> None:
    learner = assemble(models.MLP(4, 5).double(), sgd(0.5), 3)
    given = tasks((4,))
    together = learner.evaluate(stack(given))
    assert together.accuracy is not None
    for index, (task, (ways, *_)) in enumerate(zip(given, SIZES, strict=True)):
        single = learner.evaluate(alone(task), ways=ways)
        assert single.accuracy is not None
        assert torch.allclose(together.accuracy[index], single.accuracy[0], rtol=1e-12)
        assert torch.allclose(together.loss[index], single.loss[0], rtol=1e-12)
