"""The meta-gradient of a Keras model on TensorFlow is that of the same model in PyTorch, in float64, name by name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from rbml import Stream
from rbml.keras import tensorflow_layers, tensorflow_rules, tensorflow_task
from rbml.keras.tensorflow_data import pairs
from rbml.strategy import Hyper, StepInfo, Strategy, chain, momentum, sgd, weight_decay

spec = importlib.util.spec_from_file_location("keras_cases", Path(__file__).parent / "cases.py")
assert spec is not None
cases = importlib.util.module_from_spec(spec)
sys.modules["keras_cases"] = cases
spec.loader.exec_module(cases)

# Keras's own variables know nothing of NumPy 2's copy=.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

EVERYTHING = chain(
    weight_decay(Hyper(0.01, per="layer"), name="decay_layer"),
    momentum(Hyper(0.8, bounds=(0, 1), per="element"), name="momentum_element"),
    sgd(Hyper((0.1, 0.3), per="tensor", per_step=True, bounds=(0, None))),
)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # Keras keeps the policy of the first layer that was made
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def meta_gradient(meta: Any, tasks: Any) -> tuple[float, dict[str, Any]]:
    inner, data = meta._inner(), pairs(tasks, meta._shape)

    @tf.function(autograph=False)
    def mean() -> Any:
        m = meta._m()
        kinds = ("float64", "float64", dict.fromkeys(m, "float64"))
        loss, _, grads = tensorflow_task.over_tasks(lambda one: tuple(inner.gradient(m, list(m), *one)), data, kinds)
        return tf.reduce_mean(loss), {name: tf.reduce_mean(grad, 0) for name, grad in grads.items()}

    loss, grads = mean()
    return float(loss), {name: np.asarray(grad) for name, grad in grads.items()}


def check_equal(learner: Any, meta: Any, case: Any, tasks: Any, torch_tasks: Any = None) -> None:
    truth = learner.meta_gradient(tasks if torch_tasks is None else torch_tasks)
    loss, grads = meta_gradient(meta, tasks)
    assert loss == pytest.approx(truth.loss.item(), rel=1e-13)
    found = {}
    for name, grad in truth.grads.items():
        kind, _, leaf = name.partition(".")
        own = case.names[leaf] if kind == "model" else cases.leaf_name(leaf, case.names)
        found[own] = cases.to_keras(grad) if kind == "model" else cases.in_keras(grad, leaf)
    assert set(found) == set(grads)
    for name, grad in found.items():
        assert np.linalg.norm(grads[name] - grad) <= 1e-12 * np.linalg.norm(grad), name


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("make", ["mlp", "conv4"])
def test_equals_the_pytorch_learner_for_theta0_and_every_leaf_of_phi(make: str, steps: int) -> None:
    case = getattr(cases, make)()
    learner, meta = cases.pair(case, EVERYTHING, steps)
    check_equal(learner, meta, case, cases.tasks((6,) if make == "mlp" else (1, 12, 12)))


def test_equals_it_where_many_steps_are_a_loop_of_tensorflow() -> None:
    case, steps = cases.mlp(), tensorflow_task.UNROLLED + 1
    learner, meta = cases.pair(case, chain(momentum(Hyper(0.5)), sgd(Hyper(0.1, per_step=True))), steps)
    tasks = cases.tasks((6,), steps)
    check_equal(learner, meta, case, Stream(*tasks), Stream(*tasks))


def test_equals_it_with_the_statistics_of_the_support_set() -> None:
    case = cases.conv4()
    learner, meta = cases.pair(case, sgd(Hyper(0.2)), 1, statistics="inductive")
    tasks = cases.tasks((1, 12, 12))
    check_equal(learner, meta, case, tasks)
    (x, y), (query, _) = pairs(tasks, meta._shape)
    adapted = meta.adapt(x[0], y[0])
    truth = learner.adapt(tasks.support.x[0], tasks.support.y[0])(tasks.query.x[0]).detach().numpy()
    assert np.allclose(adapted(query[0]), truth, rtol=1e-10, atol=1e-10)
    assert np.allclose(meta.predict(((x, y), query), verbose=0)[0], truth, rtol=1e-10, atol=1e-10)


NUMBERS = [Hyper(0.3), Hyper(0.3, "layer", bounds=(0, None)), Hyper(0.3, "element", True, bounds=(None, 1))]
STRATEGIES = [
    chain(momentum(Hyper(0.9, bounds=(0, 1))), sgd()),
    chain(momentum(0.9, nesterov=True), sgd()),
    chain(momentum(0.9, dampening=Hyper(0.3)), sgd(), weight_decay(Hyper(0.1, "tensor", True))),
    chain(momentum(0.5, name="slow"), momentum(0.9, name="fast"), sgd(0.1)),
    *(chain(weight_decay(number), sgd(number)) for number in NUMBERS),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rules_compute_what_the_strategy_computes_in_pytorch(strategy: Strategy) -> None:
    theta = {name: torch.randn(3, 2, dtype=torch.float64) for name in ("a.weight", "a.bias", "b.weight")}
    learned, fixed = strategy.initial(theta, 3, None)
    phi, state = learned | fixed, strategy.init(theta)
    own = {name: tf.constant(leaf.numpy()) for name, leaf in theta.items()}
    own_phi, own_state = _tensors(phi), tensorflow_rules.start(strategy, own)
    assert set(own_state) == set(state)
    for t in range(4):
        grads = {name: torch.sin(3 * leaf + t) for name, leaf in theta.items()}
        theta, state = strategy.update(grads, state, theta, phi, StepInfo(t, 3))
        own, own_state = tensorflow_rules.update(strategy, _tensors(grads), own_state, own, own_phi, tf.constant(t))
        for name, leaf in theta.items():
            assert np.allclose(own[name], leaf, rtol=1e-14, atol=1e-14)


def _tensors(tree: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tf.constant(leaf.numpy()) for name, leaf in tree.items()}


NORMS = {
    "batch": lambda: keras.layers.BatchNormalization(name="norm"),
    "batch, first axis": lambda: keras.layers.BatchNormalization(axis=1, name="norm"),
    "group": lambda: keras.layers.GroupNormalization(2, name="norm"),
    "layer": lambda: keras.layers.LayerNormalization(name="norm"),
    "layer, both axes": lambda: keras.layers.LayerNormalization(axis=[1, 2], name="norm"),
}


@pytest.mark.parametrize("norm", NORMS)
def test_moments_written_out_are_right_where_those_of_tensorflow_are_wrong(norm: str, monkeypatch: Any) -> None:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, "tanh", name="a"), NORMS[norm](), keras.layers.Flatten()]
    head = keras.layers.Dense(3, name="head")
    model = keras.Sequential([keras.Input((4, 6), dtype="float64"), *layers, head])
    _, meta = model, cases.MetaModel(model, sgd(Hyper(0.5)), 2)
    meta.compile(loss=cases.CLASSES)
    tasks = cases.tasks((4, 6), count=1)
    variable, step = model.get_layer("a").kernel, 1e-6
    along = np.random.default_rng(0).normal(size=variable.shape)
    start, ends = variable.numpy(), []
    for sign in (1, -1):
        variable.assign(start + sign * step * along)
        ends.append(float(meta.evaluate(tasks, batch_size=1, verbose=0)))
    variable.assign(start)
    truth = (ends[0] - ends[1]) / (2 * step)
    assert (meta_gradient(meta, tasks)[1]["a.kernel"] * along).sum() == pytest.approx(truth, rel=1e-7)
    monkeypatch.setattr(tensorflow_task, "exact", lambda model: nullcontext())
    own = (meta_gradient(meta, tasks)[1]["a.kernel"] * along).sum()
    assert abs(own / truth - 1) > 1e-5, "TensorFlow's own moments stop a gradient"


def test_layers_are_as_before_when_the_context_ends() -> None:
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((3,)), keras.Sequential([layer])])
    with tensorflow_layers.exact(model):
        assert "_moments" in vars(layer)
    assert "_moments" not in vars(layer)
