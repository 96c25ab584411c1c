"""Algorithms, compiled steps, ``check``, ``explain`` and ``tune`` work on a converted Keras model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("keras", reason="needs Keras: pip install 'rbml[keras]'")
if os.environ["KERAS_BACKEND"] != "torch":
    pytest.skip("these tests need KERAS_BACKEND=torch", allow_module_level=True)

import keras
from keras import layers as L

import rbml
from rbml import algorithms
from rbml.hypergrad import Adjoint, Unrolled
from rbml.keras import from_keras, to_keras
from rbml.models import MLP
from rbml.strategy import Hyper, chain, dropout, kronecker, sgd
from rbml.tree import Tree

Pictures = Callable[..., rbml.Episodes]


def network() -> Any:
    return keras.Sequential(
        [L.Input((6,)), L.Dense(7, activation="tanh", name="body"), L.Dense(3, name="head")], name="network"
    )


def the_same_in_torch(module: torch.nn.Module) -> torch.nn.Module:
    other = MLP(6, 3, hidden=(7,), activation=torch.nn.Tanh).double()
    leaves = [leaf.detach() for leaf in module.parameters()]
    with torch.no_grad():
        for own, leaf in zip(other.parameters(), leaves, strict=True):
            own.copy_(leaf)
    return other


@pytest.mark.parametrize(
    "name", ["maml", "anil", "meta_sgd", "meta_curvature", "protonet", "protomaml", "r2d2", "imaml"]
)
def test_algorithms_give_what_they_give_in_pytorch(name: str, pictures: Pictures) -> None:
    tasks = pictures(tasks=2, shape=(6,))
    module = from_keras(network()).double()
    results = []
    for model in (module, the_same_in_torch(module)):
        torch.manual_seed(0)  # of rates that are drawn
        results.append(algorithms.ALL[name](model).meta_gradient(tasks))
    found, truth = results
    assert abs(float(found.loss - truth.loss)) < 1e-12
    assert len(found.grads) == len(truth.grads)
    for ours, theirs in zip(found.grads.values(), truth.grads.values(), strict=True):
        assert float((ours - theirs).norm()) <= 1e-10 * max(1.0, float(theirs.norm()))


@pytest.mark.parametrize("engine", [Adjoint(store="segments"), Adjoint(hvp="reverse"), Unrolled()])
def test_engines_and_gates(engine: Any, pictures: Pictures) -> None:
    strategy = chain(dropout(Hyper(0.2, bounds=(0, 1))), kronecker(), sgd(Hyper(0.1, per="element")))
    learner = rbml.Learner(from_keras(network()).double(), strategy, 3, hypergradient=engine)
    found = learner.meta_gradient(pictures(tasks=2, shape=(6,)))
    assert bool(found.grads["phi.dropout.rate"].any())


def test_check_and_explain(pictures: Pictures) -> None:
    tasks = pictures(tasks=2, shape=(6,))
    learner = rbml.Learner(from_keras(network()).double(), sgd(Hyper(0.1, per="tensor")), 2)
    assert rbml.check(learner, tasks).passed
    assert "body.weight" in str(rbml.explain(learner, tasks))


def test_tune_draws_the_layers_anew_and_gives_a_keras_model() -> None:
    x = torch.randn(90, 6)
    found = rbml.tune(from_keras(network()), (x, x[:, :3].argmax(1)), seconds=1, starts=1, steps=10, compile=False)
    model = to_keras(found.adapted)
    assert torch.allclose(model(x), found.adapted(x), atol=1e-6)


def test_new_numbers_are_those_of_the_initializers_and_repeat_with_the_seed() -> None:
    model = keras.Sequential(
        [
            L.Input((8, 8, 1)),
            L.Conv2D(4, 3, name="conv2d"),
            L.BatchNormalization(),
            L.Reshape((36, 4)),
            L.GRU(3, name="gru"),
        ]
    )
    module = from_keras(model)
    drawn: list[Tree] = []
    for _ in range(2):
        torch.manual_seed(3)
        for layer in module.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        drawn.append({name: leaf.detach().clone() for name, leaf in module.named_parameters()})
    assert all(torch.equal(drawn[0][name], leaf) for name, leaf in drawn[1].items())
    before = dict(from_keras(model).named_parameters())
    changed = {name for name, leaf in drawn[0].items() if not torch.equal(leaf, before[name])}
    assert changed == {"conv2d.weight", "gru.gru_cell.kernel", "gru.gru_cell.recurrent_kernel"}
    recurrent = drawn[0]["gru.gru_cell.recurrent_kernel"]
    assert torch.allclose(recurrent @ recurrent.T, torch.eye(3), atol=1e-5)  # orthogonal


def test_traced_steps_give_the_same_meta_gradient(pictures: Pictures) -> None:  # compile="step" takes a minute
    tasks, module = pictures(tasks=2, shape=(6,)), from_keras(network()).double()
    found, truth = (
        rbml.Learner(module, sgd(Hyper(0.1, per="tensor")), 2, execution=rbml.Execution(compile=compile)).meta_gradient(
            tasks
        )
        for compile in ("trace", "no")
    )
    assert abs(float(found.loss - truth.loss)) < 1e-12
    for name, leaf in truth.grads.items():
        assert float((found.grads[name] - leaf).abs().max()) < 1e-12
