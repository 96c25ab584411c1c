"""What was learned goes back to Keras: the adapted model, its rates, and adaptation in plain Keras."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("keras", reason="needs Keras: pip install 'rbml[keras]'")
if os.environ["KERAS_BACKEND"] != "torch":
    pytest.skip("these tests need KERAS_BACKEND=torch", allow_module_level=True)

import keras
import numpy as np
from keras import layers as L

import rbml
from rbml.errors import UsageError
from rbml.keras import PerVariableSGD, from_keras, rates, to_keras
from rbml.strategy import Hyper, chain, momentum, ridge, sgd, weight_decay

Pictures = Callable[..., rbml.Episodes]


def network(end: str | None = None) -> Any:
    return keras.Sequential(
        [
            L.Input((8, 8, 2)),
            L.Conv2D(4, 3, padding="same", name="conv"),
            L.BatchNormalization(name="bn"),
            L.Activation("tanh"),
            L.Flatten(),
            L.Dense(3, name="head", activation=end),
        ],
        name="network",
    )


def learned(model: Any, tasks: rbml.Episodes, strategy: Any, steps: int = 3, **options: Any) -> rbml.Learner:
    """Return a learner after two steps across tasks."""
    learner = rbml.Learner(from_keras(model, **options), strategy, steps)
    optimizer = torch.optim.Adam(learner.parameters(), 0.02)
    for _ in range(2):
        optimizer.zero_grad()
        learner.backward(tasks)
        optimizer.step()
    return learner


@pytest.fixture
def tasks(pictures: Pictures) -> rbml.Episodes:
    return pictures(tasks=2, shape=(8, 8, 2), dtype=torch.float32)


def test_an_adapted_model_and_theta0_are_keras_models(tasks: rbml.Episodes, tmp_path: Path) -> None:
    learner = learned(network(), tasks, sgd(Hyper(0.1, per="tensor")))
    x, y = tasks.support.x[0], tasks.support.y[0]
    adapted = learner.adapt(x, y)
    model = to_keras(adapted)
    assert isinstance(model, keras.Sequential)
    assert torch.allclose(model(x), adapted(x), atol=1e-5)
    model.save(tmp_path / "adapted.keras")
    again = keras.saving.load_model(tmp_path / "adapted.keras")
    assert torch.equal(again(x), model(x))
    start = to_keras(learner)
    kernel = learner.model.get_parameter("conv.weight").permute(2, 3, 1, 0)
    assert torch.equal(start.get_layer("conv").kernel.value, kernel)
    assert torch.equal(to_keras(learner.model).get_layer("head").bias.value, learner.model.get_parameter("head.bias"))


def test_a_converted_keras_model_comes_back_as_it_was() -> None:
    model, x = network("softmax"), torch.randn(4, 8, 8, 2)
    for logits in (False, True):
        assert torch.equal(to_keras(from_keras(model, logits=logits))(x), model(x))


@pytest.mark.parametrize("functional", [False, True])
def test_a_head_for_other_classes(tasks: rbml.Episodes, pictures: Pictures, functional: bool) -> None:
    model = network()
    if functional:
        inputs = keras.Input((8, 8, 2))
        model = keras.Model(inputs, model.get_layer("head")(L.Flatten()(model.get_layer("conv")(inputs))))
    learner = learned(model, tasks, sgd(0.1))
    few = pictures(tasks=1, ways=5, shape=(8, 8, 2), dtype=torch.float32).support
    adapted = learner.adapt(few.x[0], few.y[0])
    exported = to_keras(adapted)
    assert exported.output_shape == (None, 5)
    assert torch.allclose(exported(few.x[0]), adapted(few.x[0]), atol=1e-5)


def test_a_head_made_from_the_support_set(tasks: rbml.Episodes) -> None:
    learner = rbml.Learner(from_keras(network()), ridge(), 0)
    adapted = learner.adapt(tasks.support.x[0], tasks.support.y[0])
    assert torch.allclose(to_keras(adapted)(tasks.query.x[0]), adapted(tasks.query.x[0]), atol=1e-4)


def test_what_keras_cannot_express_is_refused(tasks: rbml.Episodes) -> None:
    model = from_keras(network())
    norms = rbml.Learner(model, steps=2, initial=rbml.Initial(stepwise="norms"))
    with pytest.raises(UsageError, match="have one value per inner step"):
        to_keras(norms)
    adapted = rbml.Learner(model).adapt(tasks.support.x[0], tasks.support.y[0], statistics="transductive")
    with pytest.raises(UsageError, match="statistics='inductive'"):
        to_keras(adapted)
    for function in (to_keras, rates):
        with pytest.raises(UsageError, match=r"not (of )?a Linear"):
            function(rbml.Learner(nn.Linear(2, 2)))
    with pytest.raises(UsageError, match=r"there is no number of the strategy named 'sgd\.rate'"):
        rates(rbml.Learner(model), of="sgd.rate")


# ----------------------------------------------------------------------------------------- adaptation in plain Keras


STRATEGIES: dict[str, Callable[[], Any]] = {
    "one rate": lambda: sgd(Hyper(0.1)),
    "per element and step": lambda: sgd(Hyper(0.1, per="element", per_step=True)),
    "momentum and decay": lambda: chain(
        weight_decay(Hyper(0.01, per="layer")), momentum(Hyper(0.5, per="tensor")), sgd(Hyper(0.1, per="tensor"))
    ),
}


def optimizer_of(learner: rbml.Learner) -> Any:
    steps, numbers = [rates(learner, step) for step in range(3)], {}
    if len(learner.strategy.parts) > 1:
        numbers = {"momentum": rates(learner, of="momentum.decay"), "decay": rates(learner, of="weight_decay.rate")}
    return PerVariableSGD(steps, **numbers)


def adapted_in_keras(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    """Take three steps in plain Keras, and then set the statistics of batch norm by one pass over the support set."""
    model.get_layer("bn").momentum = 0.0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    for _ in range(3):
        model.train_on_batch(x, y)
    model(x, training=True)
    return model


@pytest.mark.parametrize("name", STRATEGIES)
def test_adaptation_in_plain_keras_takes_the_same_steps(name: str, tasks: rbml.Episodes) -> None:
    learner = learned(network(), tasks, STRATEGIES[name]())
    x, y = tasks.support.x[0], tasks.support.y[0]
    optimizer = optimizer_of(learner)
    optimizer = type(optimizer).from_config(optimizer.get_config())
    model = adapted_in_keras(to_keras(learner), optimizer, x.numpy(), y.numpy())
    adapted = learner.adapt(x, y)
    assert torch.allclose(model(x), adapted(x), rtol=0, atol=2e-6)
    for name, leaf in adapted.model.leaves().items():
        if name.startswith("head"):
            own = next(variable for variable in model.variables if variable.path == leaf.path)
            assert torch.allclose(own.value, leaf.to_keras(adapted.model.get_parameter(name)), atol=1e-6)


def test_without_rounding_adaptation_in_plain_keras_is_that_of_the_learner(in_double: None, pictures: Pictures) -> None:
    """The 1e-6 above are single precision: in double precision the predictions are equal."""
    tasks = pictures(tasks=2, shape=(8, 8, 2))
    learner = rbml.Learner(from_keras(network()), STRATEGIES["per element and step"](), 3)
    x, y = tasks.support.x[0], tasks.support.y[0]
    model = adapted_in_keras(to_keras(learner), optimizer_of(learner), x.numpy(), y.numpy())
    assert torch.allclose(model(x), learner.adapt(x, y)(x), rtol=0, atol=1e-12)


def test_rates_have_keras_paths_and_keras_shapes(tasks: rbml.Episodes) -> None:
    model = network()
    found = rates(learned(model, tasks, sgd(Hyper(0.1, per="element"))))
    assert {path: value.shape for path, value in found.items()} == {
        variable.path: tuple(variable.shape) for variable in model.trainable_variables
    }
    assert all(value.shape == () for value in rates(learned(model, tasks, sgd(Hyper(0.1)))).values())


def test_the_optimizer_refuses_a_variable_without_a_rate() -> None:
    with pytest.raises(UsageError, match="there is none"):
        PerVariableSGD({})
    model = network()
    with pytest.raises(UsageError, match=r"no rate for network/bn/gamma.*trainable=False"):
        PerVariableSGD({"network/conv/kernel": 0.1, "network/conv/bias": 0.1}).build(model.trainable_variables)


# ------------------------------------------------------------------------------------------------------ other backends


READ = """
import sys, numpy, keras
assert keras.backend.backend() == sys.argv[1]
model = keras.saving.load_model(sys.argv[2])
found = keras.ops.convert_to_numpy(model(numpy.load(sys.argv[3])))
print(abs(found - numpy.load(sys.argv[4])).max())
"""


def other_python(backend: str) -> str | None:
    """Return a Python with Keras and this backend: this one, or that of the environment variable."""
    for python in (sys.executable, os.environ.get("RBML_TENSORFLOW_PYTHON")):
        if python is None:
            continue
        known = f"import importlib.util as u, sys; sys.exit(not (u.find_spec('keras') and u.find_spec('{backend}')))"
        if subprocess.run([python, "-c", known], capture_output=True, env=bare_environment()).returncode == 0:
            return python
    return None


def bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "PYTHONPATH")}


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_saved_model_is_read_by_the_other_backends(backend: str, tasks: rbml.Episodes, tmp_path: Path) -> None:
    python = other_python(backend)
    if python is None:
        pytest.skip(f"needs {backend} with Keras here, or in the Python that RBML_TENSORFLOW_PYTHON names")
    x, y = tasks.support.x[0], tasks.support.y[0]
    adapted = learned(network(), tasks, sgd(0.1)).adapt(x, y)
    to_keras(adapted).save(tmp_path / "adapted.keras")
    for name, value in {"x": x, "out": adapted(x).detach()}.items():
        np.save(tmp_path / f"{name}.npy", value.numpy())
    files = [str(tmp_path / name) for name in ("adapted.keras", "x.npy", "out.npy")]
    environment = bare_environment() | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    answer = subprocess.run(
        [python, "-c", READ, backend, *files], capture_output=True, text=True, env=environment, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 1e-5
