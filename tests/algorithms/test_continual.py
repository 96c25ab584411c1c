"""OML, ANML and streaming LDA: what is adapted, what is learned, and that none is what it is without its point."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rbml import Learner, models
from rbml.algorithms import anml, oml, streaming_lda
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled, Windowed
from rbml.inner import roll
from rbml.learner import frozen
from rbml.strategy import Hyper
from rbml.tasks import Continual, FewShot, generator
from rbml.tasks.base import one
from rbml.tree import Tree

ARRAYS = (torch.randn(96, 4, generator=generator(0)).double(), torch.arange(96) // 8)  # twelve classes of eight


def net(outputs: int) -> models.MLP:
    torch.manual_seed(0)
    return models.MLP(4, outputs, (6, 5), nn.Tanh).double()


@pytest.mark.parametrize("preset", [oml, anml])
def test_streams_with_what_is_to_be_remembered(
    preset: Callable[..., Learner], error: Callable[[Tree, Tree], float]
) -> None:
    source = Continual(ARRAYS, ways=2, shots=3, queries=2, remember=4, labels="global")
    tasks = source.draw([1, 2])
    learner = preset(net(12), steps=6)
    found = learner.meta_gradient(tasks).grads
    truth = preset(net(12), steps=6, hypergradient=Unrolled())
    truth.load_state_dict(learner.state_dict())
    assert error(found, truth.meta_gradient(tasks).grads) < 1e-8
    rows = found["model.head.weight"].norm(dim=1)
    used = {*tasks.query.y.flatten().tolist()} - {*tasks.steps.y.flatten().tolist()}
    assert all(rows[name] > 0 for name in used), "rows of classes that are only remembered are learned across streams"


def test_the_representation_runs_once_and_the_modulation_is_not_adapted() -> None:
    stream = one(Continual(ARRAYS, ways=2, shots=3, queries=2).draw([1]), 0)
    assert frozen.frozen_body(oml(net(2), steps=6).bind(stream)) == "head"
    learner = anml(net(2), steps=6)
    assert learner.adapted and not [name for name in learner.adapted if name.startswith("modulation.")]
    assert [name for name, _ in learner.named_parameters() if name.startswith("model.modulation.")]
    assert not torch.equal(learner.model.modulation.body[1].weight, learner.model.body.body[1].weight)
    with pytest.raises(UsageError, match=r"needs an nn\.Linear as its last layer"):
        anml(nn.Linear(4, 2))


PICTURES = (torch.randn(96, 1, 28, 28, generator=generator(0)).double(), torch.arange(96) // 8)


@pytest.mark.parametrize("name", ["oml", "anml"])
def test_the_networks_of_the_papers(name: str, error: Callable[[Tree, Tree], float]) -> None:
    torch.manual_seed(0)
    net = models.OMLNet(12, size=28, filters=2, width=4) if name == "oml" else models.anml_net(12, 1, 28, 2, 2)
    preset = {"oml": oml, "anml": anml}[name]
    tasks = Continual(PICTURES, ways=2, shots=2, queries=2, remember=4, labels="global").draw([1, 2])
    learner = preset(net.double(), steps=4)
    bodies = {layer.rpartition(".")[0] for layer in learner.adapted}
    assert bodies == ({"hidden", "head"} if name == "oml" else {f"body.{i}" for i in (0, 1, 4, 5, 8, 9)} | {"head"})
    assert frozen.frozen_body(learner.bind(one(tasks, 0))) == ("hidden" if name == "oml" else None)
    found = learner.meta_gradient(tasks).grads
    truth = preset(net, steps=4, hypergradient=Unrolled())
    assert error(found, truth.meta_gradient(tasks).grads) < 1e-8
    assert any("modulation" in key or "body" in key for key, grad in found.items() if grad.abs().sum() > 0)


def test_streaming_lda_is_learned_on_ordinary_tasks_and_for_any_number_of_classes() -> None:
    learner = streaming_lda(net(3))
    found = learner.meta_gradient(FewShot(ARRAYS, 3, 4, 4).draw([1, 2]))
    assert {"phi.lda.shrink", "phi.lda.scale", "model.body.1.weight"} <= {
        name for name, grad in found.grads.items() if grad.abs().sum() > 0
    }
    many = FewShot(ARRAYS, 9, 4, 4).draw([3])
    adapted = learner.adapt(*one(many, 0).support)
    assert adapted(one(many, 0).query.x).shape == (36, 9)


@pytest.mark.parametrize("preset", [oml, anml])
def test_a_cosine_head_that_settles_is_learned_exactly(
    preset: Callable[..., Learner], error: Callable[[Tree, Tree], float]
) -> None:
    """By two engines, by windows, in the middle of a stream, and by central differences."""
    tasks = Continual(ARRAYS, ways=2, shots=3, queries=2, remember=4, labels="global").draw([1, 2])
    learner, truth, windows = (
        preset(net(12), Hyper(2.0, bounds=(0, None)), 6, cosine=True, hypergradient=engine)
        for engine in (Adjoint(), Unrolled(), Windowed(9))
    )
    found = learner.meta_gradient(tasks)
    numbers = {"phi.sgd.lr", "phi.settle.tau", "phi.tempered.factor", "model.head.log_scale"}
    assert all(abs(float(found.grads[name])) > 1e-6 for name in numbers)
    assert "head.log_scale" not in learner.adapted and "head.weight" in learner.adapted
    assert error(found.grads, truth.meta_gradient(tasks).grads) < 1e-8
    assert error(found.grads, windows.meta_gradient(tasks).grads) < 1e-8
    leaves = dict(learner.named_parameters())
    for name in (*numbers, "model.head.weight", "model.body.1.weight" if preset is oml else "model.body.body.1.weight"):
        leaf, ahead, losses = leaves[name].data, torch.randn_like(leaves[name]), []
        for step in (1e-6, -2e-6):
            leaf.add_(step * ahead)
            losses.append(learner.meta_gradient(tasks).loss)
        leaf.add_(1e-6 * ahead)
        along = (found.grads[name] * ahead).sum()
        assert torch.allclose((losses[0] - losses[1]) / 2e-6, along, rtol=1e-5, atol=1e-9), name
    inner = learner.inner(one(tasks, 0))
    whole = roll(inner, inner.start({}), {}, 0, 6)
    middle = roll(inner, roll(inner, inner.start({}), {}, 0, 4), {}, 4, 6)
    assert all(torch.equal(leaf, middle.theta[name]) for name, leaf in whole.theta.items())


def test_with_a_cosine_head_the_body_runs_once_also_in_the_network_of_the_paper() -> None:
    stream = one(Continual(ARRAYS, ways=2, shots=3, queries=2).draw([1]), 0)
    assert frozen.frozen_body(oml(net(2), steps=6, cosine=True).bind(stream)) == "head"
    learner = oml(models.OMLNet(2, size=28, filters=2, width=4), steps=4, cosine=True)
    assert learner.adapted == ["head.weight"]
    pictures = one(Continual(PICTURES, ways=2, shots=2, queries=2).draw([1]), 0)
    assert frozen.frozen_body(learner.to(torch.float64).bind(pictures)) == "head"
