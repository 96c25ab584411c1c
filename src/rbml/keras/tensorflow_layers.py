"""Keras layers on TensorFlow: normalisation with right derivatives of every order, and what a model must not contain.

``tf.nn.moments`` stops the gradient at the mean inside the variance. The first derivative of the variance by the mean
is zero, so that first derivatives are right, but the derivative of a gradient is not: for batch norm the meta-gradient
is wrong by 1e-3 after one inner step, and by 1e-2 after five.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from rbml.errors import UsageError

STOPPED = {"StopGradient", "PreventGradient"}
"""TensorFlow operators whose gradient is not the derivative."""


def moments(x: Any, axes: list[int], keepdims: bool = False) -> tuple[Any, Any]:
    """Return mean and variance over some axes, written out so that derivatives of every order are right."""
    mean = tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=True)
    return (mean, variance) if keepdims else (tf.squeeze(mean, axes), tf.squeeze(variance, axes))


def _batch_moments(layer: Any, original: Callable[..., Any], inputs: Any, mask: Any) -> tuple[Any, Any]:
    if mask is not None:
        both: tuple[Any, Any] = original(inputs, mask)  # Keras writes these out itself
        return both
    return moments(inputs, layer._reduction_axes)


def _group_norm(layer: Any, original: Callable[..., Any], grouped: Any, shape: Any) -> Any:
    axes = list(range(1, len(grouped.shape)))
    axes.pop(-2 if layer.axis == -1 else layer.axis - 1)
    mean, variance = moments(grouped, axes, keepdims=True)
    wide = layer._create_broadcast_shape(shape)
    scale = tf.math.rsqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * tf.reshape(keras.ops.cast(layer.gamma, grouped.dtype), wide)
    result = (grouped - mean) * scale
    return result + tf.reshape(keras.ops.cast(layer.beta, grouped.dtype), wide) if layer.center else result


def _layer_norm(layer: Any, original: Callable[..., Any], inputs: Any) -> Any:
    if layer.rms_scaling:
        return original(inputs)  # it takes no mean
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    axes = sorted(axis % len(inputs.shape) for axis in axes)
    wide = [inputs.shape[axis] if axis in axes else 1 for axis in range(len(inputs.shape))]
    x = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    mean, variance = moments(x, axes, keepdims=True)
    result = (x - mean) * tf.math.rsqrt(variance + layer.epsilon)
    if layer.gamma is not None:
        result = result * tf.reshape(keras.ops.cast(layer.gamma, x.dtype), wide)
    if layer.beta is not None:
        result = result + tf.reshape(keras.ops.cast(layer.beta, x.dtype), wide)
    return keras.ops.cast(result, layer.compute_dtype)


WRITTEN_OUT: dict[type, tuple[str, Callable[..., Any]]] = {
    keras.layers.BatchNormalization: ("_moments", _batch_moments),
    keras.layers.GroupNormalization: ("_apply_normalization", _group_norm),
    keras.layers.LayerNormalization: ("call", _layer_norm),
}
"""For each kind of layer the method that takes its moments, and what is done in its place."""


@contextmanager
def exact(model: Any) -> Iterator[None]:
    """Let the normalisation layers of a model take their moments by :func:`moments` while the context lasts.

    Only these layer objects are touched, and they are as before afterwards.
    """
    replaced = []
    for layer in layers_of(model):
        for kind, (method, function) in WRITTEN_OUT.items():
            if isinstance(layer, kind):
                layer.__dict__[method] = partial(function, layer, getattr(layer, method))
                replaced.append((layer, method))
    try:
        yield
    finally:
        for layer, method in replaced:
            layer.__dict__.pop(method, None)


def layers_of(model: Any) -> list[Any]:
    """Return all layers of a model, those inside other layers included."""
    return list(model._flatten_layers(include_self=False, recursive=True))


def batch_norms(model: Any) -> list[Any]:
    """Return the layers that normalise by the statistics of the batch."""
    return [layer for layer in layers_of(model) if isinstance(layer, keras.layers.BatchNormalization)]


def check_model(model: Any) -> None:
    """Refuse what is no built Keras model with one input and one output.

    Raises:
        UsageError: saying what the model lacks.
    """
    if keras.backend.backend() != "tensorflow":
        raise UsageError(
            f"MetaModel needs Keras on TensorFlow, and Keras runs on {keras.backend.backend()}: set KERAS_BACKEND="
            "tensorflow before Keras is imported, or use Learner(rbml.keras.from_keras(model), ...) on PyTorch"
        )
    if not isinstance(model, keras.Model):
        raise UsageError(f"MetaModel needs a Keras model, not a {type(model).__name__}")
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise UsageError(
            f"{model.name} does not know the shape of its inputs: begin it with keras.Input(shape); put a subclassed "
            "model into keras.Sequential([keras.Input(shape), model])"
        )
    if len(inputs) > 1 or len(model.outputs) > 1:
        raise UsageError(
            f"{model.name} has {len(inputs)} inputs and {len(model.outputs)} outputs; MetaModel takes one of each"
        )
    if not model.trainable_variables:
        raise UsageError(f"{model.name} has no trainable variables: there is nothing to learn")


def check_operators(model: Any, x: Any) -> None:
    """Refuse a model that draws random numbers or stops gradients, by the operators that it consists of.

    Args:
        model: a built model.
        x: inputs of the model; only their shapes and types are used.

    Raises:
        UsageError: naming the layer.
    """

    def forward(x: Any) -> Any:
        with exact(model):
            return model.stateless_call(model.trainable_variables, model.non_trainable_variables, x, training=True)[0]

    specs = tf.nest.map_structure(lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), x)
    graph = tf.function(forward, autograph=False).get_concrete_function(specs).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    for node in nodes:
        if node.op in STOPPED:
            raise UsageError(
                f"{node.name} of the model stops gradients, so that its meta-gradient would be silently wrong: "
                "leave that layer out"
            )
        if "Random" in node.op:
            raise UsageError(
                f"{node.name} of the model draws random numbers (dropout, noise or augmentation), and a step must not: "
                "take that layer out or set its rate to 0. With KERAS_BACKEND=torch, rbml.strategy.dropout drops "
                "while a task is learned"
            )
