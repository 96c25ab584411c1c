"""The inner loop of one task in TensorFlow, and its derivative by theta0 and phi.

Shapes: B tasks, n examples of one task, T inner steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from rbml.keras.tensorflow_layers import batch_norms, exact
from rbml.keras.tensorflow_rules import Tensors, start, update
from rbml.strategy import Strategy

Examples = tuple[Any, Any]
"""Inputs and targets of one task, each ``(n, ...)``; of a stream ``(T, n, ...)``: one batch for each step."""

UNROLLED = 10
"""Up to so many inner steps are written into the graph one by one, which is 1.3 times as fast as a TensorFlow loop."""


class Measured(NamedTuple):
    """The result for one task.

    Attributes:
        loss: of the queries, a scalar.
        prediction: for the queries, ``(n, ...)``.
        grads: the derivative of the loss by each meta-parameter.
    """

    loss: Any
    prediction: Any
    grads: Tensors


@dataclass(frozen=True)
class InnerLoop:
    """How a task is learned.

    Attributes:
        model: a built Keras model.
        strategy: how one step changes theta.
        steps: T.
        loss: from (target, prediction), as Keras has it, to a scalar or one number per example.
        names: the names of the model's trainable variables, in their order.
        adapted: those that a task adapts.
        statistics: which statistics batch norm uses on the queries.
    """

    model: Any
    strategy: Strategy
    steps: int
    loss: Callable[[Any, Any], Any]
    names: list[str]
    adapted: list[str]
    statistics: str

    def adapt(self, m: Tensors, support: Examples) -> Tensors:
        """Return all parameters of the model after T steps on a support set.

        Args:
            m: every trainable variable of the model and every leaf of phi, by name.
            support: the examples; a stream has one more dimension than the model takes, and step t sees its batch t.
        """

        def step(t: Any, theta: Tensors, state: Tensors) -> Any:
            return t + 1, *self._step(theta, state, m, self._batch(support, t), t)

        theta = {name: m[name] for name in self.adapted}
        state = start(self.strategy, theta)
        if self.steps <= UNROLLED:
            for t in range(self.steps):
                _, theta, state = step(t, theta, state)
        else:
            _, theta, _ = tf.while_loop(lambda t, *_: t < self.steps, step, (tf.constant(0), theta, state))
        return {name: m[name] for name in self.names} | theta

    def measure(self, m: Tensors, support: Examples, query: Examples) -> tuple[Any, Any]:
        """Return the query loss after adaptation, and the predictions."""
        values = self.adapt(m, support)
        x, y = query
        prediction, extra = self._predict(values, x, self._flat(support, x))
        return self._mean_loss(y, prediction, extra), prediction

    def gradient(self, m: Tensors, learned: list[str], support: Examples, query: Examples) -> Measured:
        """Return the query loss, the predictions, and the derivative by the named meta-parameters."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            sources = {name: m[name] for name in learned}
            tape.watch(sources)
            loss, prediction = self.measure(m, support, query)
        grads = tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return Measured(loss, prediction, {name: tf.convert_to_tensor(grad) for name, grad in grads.items()})

    def predictions(self, m: Tensors, support: Examples, x: Any) -> Any:
        """Return the predictions for ``x`` after adaptation."""
        return self._predict(self.adapt(m, support), x, self._flat(support, x))[0]

    def fitted_statistics(self, values: Tensors, x: Any) -> list[Any]:
        """Return the model's other variables, with the statistics of a batch in its batch norms."""
        before = {variable.path: variable.value for variable in self.model.non_trainable_variables}
        norms = [layer for layer in batch_norms(self.model) if layer.trainable]
        own = {v.path: layer.momentum for layer in norms for v in (layer.moving_mean, layer.moving_variance)}
        empty = [tf.zeros_like(value) if path in own else value for path, value in before.items()]
        _, after, _ = self._call(values, x, True, empty)
        # Keras keeps momentum * old + (1 - momentum) * new, and here the old is zero.
        return [new / (1 - own[path]) if path in own else before[path] for path, new in zip(before, after, strict=True)]

    def _step(self, theta: Tensors, state: Tensors, m: Tensors, batch: Examples, t: Any) -> tuple[Tensors, Tensors]:
        x, y = batch
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            values = {name: m[name] for name in self.names} | theta
            prediction, _, extra = self._call(values, x, self.statistics != "running")
            loss = self._mean_loss(y, prediction, extra)
        grads = tape.gradient(loss, theta, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        grads = {name: tf.convert_to_tensor(grad) for name, grad in grads.items()}  # an embedding's is sparse
        return update(self.strategy, grads, state, theta, m, t)

    def _predict(self, values: Tensors, x: Any, support: Any) -> tuple[Any, list[Any]]:
        if self.statistics == "inductive" and batch_norms(self.model):
            prediction, _, extra = self._call(values, x, False, self.fitted_statistics(values, support))
        else:
            prediction, _, extra = self._call(values, x, self.statistics != "running")
        return prediction, extra

    def _call(self, values: Tensors, x: Any, training: bool, others: list[Any] | None = None) -> tuple[Any, Any, Any]:
        others = [variable.value for variable in self.model.non_trainable_variables] if others is None else others
        with exact(self.model):
            called: tuple[Any, Any, Any] = self.model.stateless_call(
                [values[name] for name in self.names], others, x, training=training, return_losses=True
            )
        return called

    def _mean_loss(self, y: Any, prediction: Any, extra: list[Any]) -> Any:
        # Losses of layers (regularizers, add_loss) count in both loops, as they do in Keras's own training.
        kind = self.model.trainable_variables[0].dtype
        return tf.add_n([tf.cast(each, kind) for each in (tf.reduce_mean(self.loss(y, prediction)), *extra)])

    def _batch(self, support: Examples, t: Any) -> Examples:
        return (support[0][t], support[1][t]) if self._streams(support[0]) else support

    def _streams(self, x: Any) -> bool:
        return len(x.shape) == len(self.model.inputs[0].shape) + 1

    def _flat(self, support: Examples, x: Any) -> Any:
        seen = support[0]
        return tf.reshape(seen, tf.concat([[-1], tf.shape(seen)[2:]], 0)) if self._streams(seen) else seen


def over_tasks(function: Callable[[Any], Any], tasks: Any, signature: Any) -> Any:
    """Apply a function to every task of a stack and return the stack of its results.

    Tasks run one by one, several at a time where there are cores. ``tf.vectorized_map`` is no faster here for dense
    networks, does the same for convolutions (which have other weights in every task), and keeps all tasks in memory.

    Args:
        function: of the tensors of one task.
        tasks: a structure of tensors ``(B, ...)``.
        signature: the types of what it returns, in the same structure.
    """
    return tf.map_fn(function, tasks, fn_output_signature=signature)
