"""What cannot be converted is refused by name, with the way out."""

from __future__ import annotations

import warnings
from typing import Any

import keras

from rbml.errors import UsageError

_AMOUNTS = ("rate", "stddev", "dropout", "_dropout", "recurrent_dropout", "factor")
"""The attributes of Keras layers that say how much is drawn at random."""

_REFUSED = {
    "SpectralNormalization": "rewrites its vector at every pass in training, and a task must not depend on the passes "
    "before it: take the layer inside it",
    "TorchModuleWrapper": "computes with the parameters of a PyTorch module, not with Keras variables: build the model "
    "in PyTorch and give that to Learner",
}
"""Layers by class name, with the reason and the way out."""


def check_model(model: Any) -> None:
    """Refuse what is not a built Keras model, and layers whose computation is not a function of their variables.

    Raises:
        UsageError: naming the layer and what to do.
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"from_keras is given a keras.Model, not {type(model).__module__}.{type(model).__name__}")
    if not model.built or not model.variables:
        raise UsageError(
            f"the model {model.name} has no variables yet: give it a keras.Input, or call it once on an example"
        )
    for layer in model._flatten_layers():
        if (reason := _REFUSED.get(type(layer).__name__)) is not None:
            raise UsageError(f"{named(layer)} {reason}")
        if getattr(layer, "renorm", False):
            raise UsageError(f"{named(layer)} has renorm=True, which depends on the passes before: set renorm=False")
        _check_random(layer)
    _warn_of_penalties(model)


def _check_random(layer: Any) -> None:
    """Refuse a layer that draws random numbers in training."""
    if not layer._seed_generators:
        return
    amounts = {key: value for key in _AMOUNTS if isinstance(value := getattr(layer, key, 0), int | float)}
    if type(layer).__name__.startswith("Random"):
        raise UsageError(
            f"{named(layer)} changes its inputs at random, and an engine that replays a step would see other inputs: "
            "leave it out of the model, and change the examples before they become tasks"
        )
    if found := next((f"{key.lstrip('_')}={value}" for key, value in amounts.items() if value > 0), None):
        raise UsageError(
            f"{named(layer)} has {found}, and an engine that replays a step would draw other numbers: set it to 0 "
            "(for Dropout: layer.rate = 0). For dropout in the inner loop add rbml.strategy.dropout(rate) to the "
            "strategy; its rate can be learned"
        )


def _warn_of_penalties(model: Any) -> None:
    """Warn of regularizers, which belong to the loss of ``fit`` and not to the model's output."""
    variables = [variable.path for variable in model.trainable_variables if variable.regularizer is not None]
    activities = [named(layer) for layer in model._flatten_layers() if getattr(layer, "activity_regularizer", None)]
    if variables or activities:
        warnings.warn(
            f"regularizers of the model are left out ({', '.join([*variables, *activities])}): Keras adds them to the "
            "loss in fit(). In the inner loop use a term or a rule of the strategy, such as "
            "rbml.strategy.weight_decay(rate), whose strength can be learned",
            stacklevel=4,
        )


def named(layer: Any) -> str:
    """Return a layer's path and class for a message."""
    return f"{getattr(layer, 'path', None) or layer.name} ({type(layer).__name__})"


def check_pictures(model: Any) -> None:
    """Refuse a model whose input is not pictures with their channels last.

    Raises:
        UsageError: saying what the model takes.
    """
    shape = getattr(model, "input_shape", None)
    if not (isinstance(shape, tuple) and len(shape) == 4):
        raise UsageError(
            f"channels_first=True is for a model with one input (n, height, width, channels), and {model.name} takes "
            f"{shape}: leave it out"
        )


def last_layer(model: Any) -> Any:
    """Return the layer whose output is that of the model; ``None`` if there are several, or it cannot be known."""
    if isinstance(model, keras.Sequential):
        last = model.layers[-1]
    elif isinstance(getattr(model, "outputs", None), list) and len(model.outputs) == 1:
        last = model.outputs[0]._keras_history.operation
    else:
        return None
    return last_layer(last) if isinstance(last, keras.Model) else last


def softmax_of(model: Any) -> Any:
    """Return the layer whose softmax is the output of a model; ``None`` if there is none, or it cannot be known."""
    last = last_layer(model)
    is_softmax = (
        isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax
    )
    return last if is_softmax else None
