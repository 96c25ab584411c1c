"""What every preset must do on every kind of target that it claims: an exact derivative, a model, a pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rbml import Episodes, Learner, algorithms, models
from rbml.data import targets
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled
from rbml.tasks import generator, stack
from rbml.tasks.base import one
from rbml.tree import Tree

Errors = Callable[[Tree, Tree], float]
OUTPUTS = {"classes": 3, "real": 2}
CLAIMED = [
    (name, kind) for name in algorithms.ALL for kind in OUTPUTS if kind in algorithms.TARGETS.get(name, tuple(OUTPUTS))
]
UNCLAIMED = [(name, kind) for name in algorithms.ALL for kind in OUTPUTS if (name, kind) not in CLAIMED]
OWN_HEAD = {"protonet", "protomaml", "ridge_regression", "alpaca"}
"""Presets that find out by themselves, without being told the kind of target."""

claimed = pytest.mark.parametrize(("name", "kind"), CLAIMED)


@pytest.fixture
def drawn(pictures: Callable[..., Episodes], curves: Callable[..., Episodes]) -> Callable[[str], Episodes]:
    """Tasks of a kind of target, with inputs of four numbers."""
    return lambda kind: pictures(shape=(4,)) if kind == "classes" else curves(inputs=4, outputs=2)


def made(name: str, kind: str, **options: Any) -> Learner:
    """Return the preset on a small network with a norm; what is learned of it is away from special values."""
    model = models.MLP(4, OUTPUTS[kind], (5, 4), nn.Tanh, context=2 * (name == "cavia")).double()
    steps = {} if algorithms.ALL[name](model).steps == 0 else {"steps": 3}
    learner = algorithms.ALL[name](model, loss=targets.ALL[kind].loss, **steps, **options)
    source = generator(4)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, dtype=torch.float64, generator=source)
    return learner


def test_every_kind_of_target_is_tested_here() -> None:
    assert set(OUTPUTS) == set(targets.ALL)
    assert set(algorithms.TARGETS) <= set(algorithms.ALL)
    assert all(set(kinds) < set(OUTPUTS) for kinds in algorithms.TARGETS.values())


@claimed
def test_the_meta_gradient(name: str, kind: str, drawn: Callable[[str], Episodes], error: Errors) -> None:
    learner, tasks = made(name, kind), drawn(kind)
    phase = learner.phase(0)
    learned = {key: leaf for key, leaf in learner.named_parameters() if leaf.requires_grad}
    found = learner.meta_gradient(tasks, phase=phase)
    assert set(found.grads) == set(learned)
    assert all(
        found.grads[key].shape == leaf.shape and found.grads[key].isfinite().all() for key, leaf in learned.items()
    )
    assert any(found.grads[key].abs().sum() > 0 for key in learned)
    if isinstance(phase.hypergradient, Adjoint):
        found = learner.meta_gradient(tasks, phase=phase._replace(hypergradient=Adjoint(keep=1)))
        truth = learner.meta_gradient(tasks, phase=phase._replace(hypergradient=Unrolled()))
        assert torch.allclose(found.loss, truth.loss, rtol=1e-12)
        assert error(found.grads, truth.grads) < 1e-8


@claimed
def test_what_is_learned_across_tasks_makes_them_better(name: str, kind: str, drawn: Callable[[str], Episodes]) -> None:
    """A few outer steps on the same tasks: a derivative with a wrong sign, or of something else, would not help.

    They are judged on their support sets: of noise nothing else can be learned, and Reptile promises nothing else.
    """
    learner, tasks = made(name, kind), drawn(kind)
    tasks = tasks._replace(query=tasks.support)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(float(learner.backward(tasks).loss))
        optimizer.step()
    assert losses[-1] < losses[0]


@claimed
def test_an_adapted_model_predicts_in_the_form_of_the_target(
    name: str, kind: str, drawn: Callable[[str], Episodes]
) -> None:
    learner, tasks, target = made(name, kind), drawn(kind), targets.ALL[kind]
    task = one(tasks, 0)
    adapted = learner.adapt(*task.support)
    with torch.no_grad():
        prediction = adapted(task.query.x)
    target.check(prediction, task.query)
    assert len(target.decode(prediction, ["a", "b", "c"][: OUTPUTS[kind]])) == len(task.query.y)
    whole = learner.evaluate(tasks, "inductive", metrics=target.metrics)
    assert torch.allclose(whole.prediction[0], prediction, rtol=1e-10)
    for metric in target.metrics:
        assert whole.metrics[metric.name].shape == (3, learner.steps + 1)


@claimed
def test_a_pickled_learner_is_the_same_learner(
    name: str, kind: str, drawn: Callable[[str], Episodes], error: Errors
) -> None:
    learner, tasks = made(name, kind), drawn(kind)
    before = learner.meta_gradient(tasks, phase=learner.phase(0))
    again = pickle.loads(pickle.dumps(learner))
    after = again.meta_gradient(tasks, phase=again.phase(0))
    assert torch.equal(after.loss, before.loss) and error(after.grads, before.grads) == 0


@pytest.mark.parametrize(("name", "kind"), UNCLAIMED)
def test_a_target_that_is_not_claimed_is_refused(name: str, kind: str, drawn: Callable[[str], Episodes]) -> None:
    own = algorithms.TARGETS[name][0]
    with pytest.raises(
        UsageError, match=f"{name} is for targets of the kind {own}, and these are {kind}: choose one of"
    ):
        algorithms.check_target(name, kind)
    if name in OWN_HEAD:
        model = models.MLP(4, OUTPUTS[kind], (5, 4), nn.Tanh).double()
        with pytest.raises(UsageError):
            algorithms.ALL[name](model).meta_gradient(drawn(kind))


@pytest.mark.parametrize("name", [name for name, kind in CLAIMED if kind == "classes" and name not in ("cavia",)])
def test_tasks_of_other_ways(name: str, pictures: Callable[..., Episodes], error: Errors) -> None:
    """``ways=`` of a meta-gradient: a head of three classes is trained on tasks of five, by any engine alike."""
    learner, tasks = made(name, "classes"), pictures(shape=(4,), ways=5)
    with pytest.raises(UsageError, match=r"labels must be 0 \.\. 2"):
        learner.meta_gradient(tasks)
    found = learner.meta_gradient(tasks, ways=5)
    assert found.aux["prediction"].shape == (3, 15, 5)
    phase = learner.phase(1)
    if isinstance(phase.hypergradient, Adjoint):
        found = learner.meta_gradient(tasks, phase=phase._replace(hypergradient=Adjoint(keep=1)), ways=5)
        truth = learner.meta_gradient(tasks, phase=phase._replace(hypergradient=Unrolled()), ways=5)
        assert error(found.grads, truth.grads) < 1e-8
    losses, weights = learner.evaluate(tasks, ways=5).loss.mean(0), phase.step_weights
    expected = losses[-1] if weights is None else losses[1:] @ torch.tensor(list(weights), dtype=torch.float64)
    assert float(expected) == pytest.approx(float(found.loss), rel=1e-10)


@claimed
def test_tasks_of_unequal_size_in_one_stack(
    name: str, kind: str, pictures: Callable[..., Episodes], curves: Callable[..., Episodes], error: Errors
) -> None:
    """A stack with masks is as each task alone, in its loss and in its derivative."""
    if kind == "classes":
        drawn = [pictures(tasks=1, shape=(4,), shots=shots, queries=shots + 1) for shots in (2, 3)]
    else:
        drawn = [curves(tasks=1, n=n, inputs=4, outputs=2) for n in (4, 6)]
    learner, alone = made(name, kind), [one(tasks, 0) for tasks in drawn]
    if name == "metal":
        with pytest.raises(UsageError, match="metal uses statistics of the whole support set"):
            learner.meta_gradient(stack(alone))
        return
    whole = learner.meta_gradient(stack(alone))
    each = [learner.meta_gradient(tasks) for tasks in drawn]
    assert torch.allclose(whole.aux["loss"], torch.cat([found.aux["loss"] for found in each]), rtol=1e-10)
    mean = {key: (each[0].grads[key] + each[1].grads[key]) / 2 for key in whole.grads}
    assert error(whole.grads, mean) < 1e-8
