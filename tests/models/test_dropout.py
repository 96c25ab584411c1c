from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import rbml
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Hypergradient, Unrolled
from rbml.models import MLP, Conv4
from rbml.models.dropout import Dropout, dropouts
from rbml.strategy import Hyper, sgd
from rbml.tasks import FewShot, generator


def learner(engine: Hypergradient, rate: float = 0.4, chunk: int = 32) -> rbml.Learner:
    torch.manual_seed(3)
    model = Conv4(3, filters=4, size=16, dropout=rate, norm="group", activation=nn.Tanh).double()
    strategy = sgd(Hyper(0.3, per="all"))
    return rbml.Learner(model, strategy, 2, hypergradient=engine, execution=rbml.Execution(chunk=chunk))


@pytest.fixture
def tasks() -> Any:
    x = torch.rand(60, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return FewShot((x, torch.arange(60) // 6), ways=3, shots=1, queries=2).sample(3, generator(0))


def gradient(one: rbml.Learner, tasks: Any, seed: int = 5) -> Any:
    torch.manual_seed(seed)
    return one.meta_gradient(tasks)


def test_every_engine_and_every_chunk_drops_the_same(tasks: Any) -> None:
    first = gradient(learner(Unrolled()), tasks)
    for other in (learner(Adjoint(keep=0)), learner(Unrolled(), chunk=1)):
        found = gradient(other, tasks)
        for name, leaf in first.grads.items():
            torch.testing.assert_close(found.grads[name], leaf, rtol=1e-9, atol=1e-12)
    assert not torch.equal(first.loss, gradient(learner(Unrolled()), tasks, seed=6).loss)
    assert not torch.equal(first.loss, gradient(learner(Unrolled(), rate=0.0), tasks).loss)


def test_the_derivative_is_that_of_central_differences(tasks: Any) -> None:
    one = learner(Unrolled())
    found = gradient(one, tasks).grads
    for name, leaf in one.named_parameters():
        if name in ("model.blocks.0.conv.weight", "model.head.bias") or "lr" in name:
            losses = []
            for way in (1e-5, -1e-5):
                with torch.no_grad():
                    leaf.view(-1)[0] += way
                    losses.append(gradient(one, tasks).loss.item())
                    leaf.view(-1)[0] -= way
            slope = (losses[0] - losses[1]) / 2e-5
            assert found[name].view(-1)[0].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_evaluations_and_adapted_models_drop_nothing(tasks: Any) -> None:
    dropping, plain = learner(Unrolled()), learner(Unrolled(), rate=0.0)
    assert torch.equal(dropping.evaluate(tasks).loss, plain.evaluate(tasks).loss)
    support = tasks.support.x[0], tasks.support.y[0]
    queries = tasks.query.x[0]
    assert torch.equal(dropping.adapt(*support)(queries), plain.adapt(*support)(queries))


def test_a_share_of_the_maps_is_dropped_and_the_mean_is_kept() -> None:
    x = torch.ones(500, 40, 2, 2)
    found = Dropout(0.3).dropped(x, torch.tensor(1), "here")
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert torch.equal(found[:, :, 0, 0], found[:, :, 1, 1])  # whole maps
    assert abs(float(found.mean()) - 1) < 0.02
    assert torch.equal(Dropout(0.3)(x), x)


def test_models_have_it_as_an_option() -> None:
    assert [name for name, _ in dropouts(MLP(3, 2, (4, 4), dropout=0.1))] == ["body.3", "body.6"]
    assert not dropouts(MLP(3, 2)) and not dropouts(Conv4(2))
    with pytest.raises(UsageError, match="dropout must be from 0 to below 1, not 1"):
        Conv4(2, dropout=1.0)
