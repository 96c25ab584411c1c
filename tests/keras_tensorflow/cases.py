"""The same network in PyTorch and in Keras, the same tasks, and the names and axes of one in terms of the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import torch
from torch import nn

from rbml import Batch, Episodes, Learner, models
from rbml.keras import MetaModel
from rbml.strategy import Strategy
from rbml.tasks import generator

CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")


class Case(NamedTuple):
    net: nn.Module
    model: Any
    names: dict[str, str]  # of PyTorch's parameters, in Keras


def mlp() -> Case:
    layers = [keras.layers.Dense(5, "tanh", name="a"), keras.layers.Dense(3, name="head")]
    model = keras.Sequential([keras.Input((6,), dtype="float64"), *layers])
    names = {"body.1.weight": "a.kernel", "body.1.bias": "a.bias"} | _head()
    return Case(models.MLP(6, 3, hidden=(5,), activation=nn.Tanh), model, names)


def conv4() -> Case:
    layers, names = [keras.Input((12, 12, 1), dtype="float64")], {}
    for i in range(4):
        layers += [
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(3, 3, strides=2, use_bias=False, name=f"conv{i}"),
            keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"norm{i}"),
            keras.layers.Activation("tanh"),
        ]
        parts = {"conv.weight": f"conv{i}.kernel", "norm.weight": f"norm{i}.gamma", "norm.bias": f"norm{i}.beta"}
        names |= {f"blocks.{i}.{name}": own for name, own in parts.items()}
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, name="head")]
    return Case(models.Conv4(3, filters=3, activation=nn.Tanh), keras.Sequential(layers), names | _head())


def _head() -> dict[str, str]:
    return {"head.weight": "head.kernel", "head.bias": "head.bias"}


def tasks(shape: tuple[int, ...], steps: int = 0, count: int = 2) -> Episodes:
    """Noise with labels; with steps, the support set is that of a stream."""
    source = generator(3)

    def batch(n: int, lead: tuple[int, ...]) -> Batch:
        x = torch.randn(count, *lead, n, *shape, dtype=torch.float64, generator=source)
        return Batch(x, torch.arange(n).remainder(3).expand(count, *lead, -1).clone())

    return Episodes(batch(6, (steps,) if steps else ()), batch(9, ()))


def to_keras(value: Any) -> Any:
    """Return a parameter, or anything of its shape, with Keras's axes."""
    value = np.asarray(value)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def leaf_name(leaf: str, names: dict[str, str]) -> str:
    """Return the name of a leaf of phi in Keras."""
    number, _, parameter = leaf.partition("/")
    layers = {name.rpartition(".")[0]: own.rpartition(".")[0] for name, own in names.items()}
    if not parameter:
        return number
    return f"{number}/" + (f"{layers[parameter[:-2]]}.*" if parameter.endswith(".*") else names[parameter])


def pair(case: Case, strategy: Strategy, steps: int, **options: Any) -> tuple[Learner, Any]:
    """Return a learner and a meta-model with equal parameters, moved away from zeros and ones."""
    source, net = generator(9), case.net.double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, dtype=torch.float64, generator=source)
    learner = Learner(net, strategy, steps, statistics=options.get("statistics", "transductive"))
    meta = MetaModel(case.model, strategy, steps, **options)
    for name, variable in meta._by_name().items():
        if name in meta.phi:
            continue
        (own,) = (parameter for parameter, keras_name in case.names.items() if keras_name == name)
        variable.assign(to_keras(net.get_parameter(own).detach()))
    for leaf, value in learner.phi.state_dict().items():
        meta.phi[leaf_name(leaf, case.names)].assign(in_keras(value, leaf))
    meta.compile(keras.optimizers.SGD(1.0), loss=CLASSES, metrics=["accuracy"])
    return learner, meta


def in_keras(value: torch.Tensor, leaf: str) -> Any:
    """Return a leaf of phi with Keras's axes: one number per element has those of its parameter."""
    return to_keras(value) if "element" in leaf else value.numpy()
