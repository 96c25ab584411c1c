"""Turn a converted model, adapted or not, back into a Keras model."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from rbml.errors import UsageError
from rbml.keras.convert import KerasModule
from rbml.keras.graph import copied
from rbml.keras.layers import BatchNorm, Linear
from rbml.learner import Adapted, Learner


def to_keras(model: KerasModule | Learner | Adapted) -> keras.Model:
    """Return a new Keras model with the values of a converted one.

    A learner gives theta0, what ``learner.adapt`` returns gives the model of that task, with the batch-norm statistics
    of its support set. The result has the layers and the names of the model that :func:`from_keras` was given, a
    softmax that was left out included, and shares nothing with it. Saved as ``.keras`` it is read by every backend.

    Args:
        model: a converted model, or a learner or an adapted model made with one.

    Raises:
        UsageError: if it was not made from a Keras model, or has what Keras cannot express: a value per step, or
            statistics of the query batch.
    """
    module = _module(model)
    values = _values(module, model)
    rows = {
        module.original(name): len(values[f"{name}.weight"])
        for name in module.layers
        if isinstance(module.get_submodule(name), Linear)
    }
    own = copied(module.graph.model, {layer.name: n for layer, n in rows.items() if layer.units != n})
    variables = {id(old): new for old, new in zip(module.graph.model.weights, own.weights, strict=True)}
    for name, leaf in module.leaves().items():
        variables[id(leaf.variable)].assign(_array(leaf.to_keras(values[name])))
    return own


def _module(model: Any) -> KerasModule:
    """Return the converted Keras model in a model.

    Raises:
        UsageError: if there is none, or it has what Keras cannot express.
    """
    if isinstance(model, Learner) and model.stepwise:
        raise UsageError(
            f"{', '.join(model.stepwise)} have one value per inner step, for which a Keras model has no place: use "
            "learner.adapt(x, y), or a learner without stepwise="
        )
    module: nn.Module = model.model if isinstance(model, Learner | Adapted) else model
    if not isinstance(module, KerasModule):
        raise UsageError(
            f"to_keras is given what from_keras returned, or a learner or an adapted model made with it, not a "
            f"{type(module).__name__}"
        )
    normalises = any(isinstance(layer, BatchNorm) for layer in module.modules())
    if isinstance(model, Adapted) and model.transductive and normalises:
        raise UsageError(
            "the adapted model normalises by the statistics of the query batch, which Keras does not do in "
            "prediction: use learner.adapt(x, y, statistics='inductive')"
        )
    return module


def _values(module: KerasModule, model: Any) -> dict[str, Tensor]:
    """Return all numbers by name; a head that all classes share has one row per class."""
    values = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers())
    if isinstance(model, Learner) and model.ways is not None:
        for name in model.head:
            values[name] = values[name][torch.arange(model.ways) % len(values[name])]
    return values


def _array(value: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = value.detach().cpu().numpy()
    return array
