"""A meta-model is used as Keras models are: fit, evaluate, adapt, callbacks, save, load; the rest it refuses."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from rbml import Batch, Episodes
from rbml.errors import UsageError
from rbml.keras import MetaModel, tensorflow_task
from rbml.strategy import Hyper, adam, chain, l2, momentum, sgd
from rbml.tasks import FewShot

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Keras's own variables know nothing of NumPy 2's copy=.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

RATE = sgd(Hyper(0.1, per="layer", bounds=(0, None)))


def network(*extra: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, "relu", name="body"), *extra, keras.layers.Dense(3, name="head")]
    return keras.Sequential([keras.Input((6,)), *layers])


def compiled(model: Any = None, strategy: Any = RATE, steps: int = 1, **options: Any) -> Any:
    meta = MetaModel(network() if model is None else model, strategy, steps, **options)
    meta.compile(keras.optimizers.SGD(0.5), loss=LOSS, metrics=["accuracy"])
    return meta


def tasks(count: int, shots: int = 2) -> tuple[Any, Any]:
    draw = np.random.default_rng(0)

    def batch(n: int) -> Any:
        return draw.normal(size=(count, n, 6)).astype("float32"), np.tile(np.arange(n) % 3, (count, 1))

    return batch(3 * shots), batch(9)


def test_fit_takes_the_step_of_the_outer_optimizer(monkeypatch: Any) -> None:
    meta, (support, query) = compiled(), tasks(4)
    before = {name: np.asarray(variable) for name, variable in meta._by_name().items()}
    inner, m = meta._inner(), meta._m()
    each = [tuple((x[i], y[i]) for x, y in (support, query)) for i in range(4)]
    grads = [inner.gradient(m, list(m), *one).grads for one in each]
    meta.fit(support, query, batch_size=4, verbose=0)
    for name, variable in meta._by_name().items():
        step = 0.5 * np.mean([grad[name] for grad in grads], axis=0)
        assert np.abs(step).max() > 0
        assert np.allclose(np.asarray(variable), before[name] - step, atol=1e-6)


def test_it_traces_once_for_tasks_of_one_shape_whatever_their_number(monkeypatch: Any) -> None:
    traces, original = [], tensorflow_task.InnerLoop.gradient
    monkeypatch.setattr(
        tensorflow_task.InnerLoop, "gradient", lambda self, *rest: (traces.append(1), original(self, *rest))[1]
    )
    meta = compiled()
    for count in (6, 7):
        meta.fit(*tasks(count), batch_size=4, epochs=2, verbose=0)
    first = len(traces)
    assert first <= 2, "once for the shape, and once more where TensorFlow first sees another number of tasks"
    meta.fit(*tasks(5), batch_size=4, verbose=0)
    assert len(traces) == first
    meta.fit(*tasks(4, shots=3), batch_size=4, verbose=0)
    assert len(traces) > first


def test_callbacks_and_history_are_those_of_keras(tmp_path: Path) -> None:
    meta, data = compiled(), tasks(4)
    log = tmp_path / "log.csv"
    saved = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), "val_loss", save_best_only=True)
    history = meta.fit(
        *data, validation_data=data, epochs=2, verbose=0, callbacks=[keras.callbacks.CSVLogger(log), saved]
    )
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert len(log.read_text().splitlines()) == 3
    found = meta.evaluate(*data, verbose=0, return_dict=True)
    assert history.history["val_loss"][-1] == pytest.approx(found["loss"], rel=1e-5)


def test_saved_and_read_again_it_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    meta, data = compiled(strategy=chain(momentum(Hyper(0.5, bounds=(0, 1))), RATE)), tasks(4)
    meta.compile("adam", loss=LOSS)
    meta.fit(*data, verbose=0)
    meta.save(tmp_path / "meta.keras")
    again = keras.saving.load_model(tmp_path / "meta.keras")
    for one in (meta, again):
        one.fit(*data, epochs=2, verbose=0)
    for name, variable in meta._by_name().items():
        assert np.allclose(np.asarray(variable), np.asarray(again._by_name()[name]), atol=1e-6), name
    assert again.learned().keys() == meta.learned().keys()


def test_an_adapted_model_is_an_ordinary_one_that_other_backends_read(tmp_path: Path) -> None:
    model = network(keras.layers.BatchNormalization())
    meta, (support, query) = compiled(model, steps=2), tasks(1)
    before = [np.asarray(variable) for variable in model.variables]
    adapted = meta.adapt(support[0][0], support[1][0])
    assert all(np.array_equal(old, variable) for old, variable in zip(before, model.variables, strict=True))
    expected = adapted.predict(query[0][0], verbose=0)
    assert np.allclose(adapted.predict(query[0][0][:1], verbose=0), expected[:1], atol=1e-6)
    adapted.save(tmp_path / "adapted.keras")
    np.save(tmp_path / "x.npy", query[0][0])
    script = (
        "import sys, keras, numpy as np; model = keras.saving.load_model(sys.argv[1] + '/adapted.keras'); "
        "np.save(sys.argv[1] + '/y.npy', model.predict(np.load(sys.argv[1] + '/x.npy'), verbose=0))"
    )
    for backend in ("torch", "jax"):
        if importlib.util.find_spec(backend):
            environment = os.environ | {"KERAS_BACKEND": backend}
            subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
            assert np.allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5), backend


def test_patterns_say_what_is_adapted_and_what_is_learned() -> None:
    meta, data = compiled(adapt="head.*", reset="head.bias"), tasks(4)
    assert list(meta.phi) == ["sgd.lr/head.*"]
    kernel, bias = (np.asarray(variable) for variable in meta.model.get_layer("head").variables)
    meta.fit(*data, verbose=0)
    assert np.array_equal(np.asarray(meta.model.get_layer("head").bias), bias)
    assert not np.array_equal(np.asarray(meta.model.get_layer("head").kernel), kernel)
    assert set(meta.learned()) == {"sgd.lr/head.*"}


def test_tasks_of_rbml_are_taken_as_they_are_and_pictures_turned() -> None:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    meta = compiled(keras.Sequential([keras.Input((5, 5, 2)), *layers]))
    x = torch.rand(30, 2, 5, 5)
    source = FewShot((x, torch.arange(30) % 5), ways=3, shots=1, queries=2)
    history = meta.fit(source, batch_size=2, steps_per_epoch=3, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    drawn = source.draw([0, 1])
    found = meta.evaluate(drawn, verbose=0, return_dict=True)
    turned = Episodes(*(Batch(part.x.movedim(2, -1), part.y) for part in drawn))
    assert meta.evaluate(turned, verbose=0, return_dict=True) == pytest.approx(found)


def test_the_founding_programme_gives_its_rate_a_gradient(capsys: Any) -> None:
    path = Path(__file__).parents[2] / "examples" / "keras_metamodel.py"
    spec = importlib.util.spec_from_file_location("keras_metamodel", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--steps", "12", "--outer-steps", "2"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "%" in line]
    learned, start = (float(row[-5]) for row in rows[:2])
    assert len(rows) == 2 + len(example.FIXED)
    assert learned > start, "12 steps are few: the larger, the better"


class Half(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return (x + keras.ops.stop_gradient(x)) / 2


@pytest.mark.parametrize(
    ("layer", "says"), [(keras.layers.Dropout(0.5), "random numbers"), (Half(), "stops gradients")]
)
def test_what_would_be_silently_wrong_is_refused(layer: Any, says: str) -> None:
    meta = compiled(network(layer))
    with pytest.raises(UsageError, match=says) as refused:
        meta.fit(*tasks(2), verbose=0)
    assert layer.name in str(refused.value)


def test_a_dropout_that_drops_nothing_passes() -> None:
    compiled(network(keras.layers.Dropout(0.0))).evaluate(*tasks(2), verbose=0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MetaModel(network(), chain(adam(), sgd())), "from_keras"),
        (lambda: MetaModel(network(), chain(l2(), sgd())), "'l2'"),
        (lambda: MetaModel(network(), adapt="tail.*"), "body.kernel"),
        (lambda: MetaModel(network(), statistics="batch"), "transductive"),
        (lambda: MetaModel(network(), steps=-1), "at least 0"),
        (lambda: MetaModel(torch.nn.Linear(1, 1)), "Linear"),
        (lambda: MetaModel(keras.Sequential([keras.layers.Dense(3)])), "keras.Input"),
        (lambda: MetaModel(network()).fit(*tasks(2), verbose=0), "compile"),
        (lambda: compiled().fit(*tasks(2)[0], verbose=0), "query_x"),
        (lambda: compiled().fit(FewShot((torch.rand(9, 6), torch.arange(9) % 3), 3, 1, 1)), "steps_per_epoch"),
    ],
)
def test_what_it_cannot_do_is_refused_with_what_to_do(make: Any, says: str) -> None:
    with pytest.raises((UsageError, ValueError), match=says):
        make()
