"""Meta-learning inside Keras on TensorFlow: a Keras model that learns how another Keras model learns."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import torch

from rbml.errors import UsageError, unknown
from rbml.keras.tensorflow_data import Drawn, is_source, is_tasks, pairs
from rbml.keras.tensorflow_layers import batch_norms, check_model, check_operators
from rbml.keras.tensorflow_rules import Tensors, check_rules, valid
from rbml.keras.tensorflow_task import Examples, InnerLoop, over_tasks
from rbml.strategy import Hyper, Part, Strategy, chain, sgd
from rbml.strategy.serialize import from_plain, plain
from rbml.tree import matching

STATISTICS = ("transductive", "inductive", "running")


@keras.saving.register_keras_serializable(package="rbml")
class MetaModel(keras.Model):  # type: ignore[misc]  # Keras has no types
    r"""A Keras model that has learned how to learn: its variables are theta0 (those of ``model``) and phi.

    .. math:: \min_{\theta_0, \phi} \; \frac1B \sum_{b=1}^{B} L^{query}_b(\theta_T), \qquad
              \theta_{t+1} = \theta_t - \phi(\nabla L^{support}_b(\theta_t))

    Both are learned by backpropagation through the inner steps, in one TensorFlow graph. It is used like any Keras
    model::

        meta = MetaModel(model, sgd(Hyper(0.1, per="tensor")), steps=5)
        meta.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        meta.fit((x, y), (query_x, query_y), batch_size=8)
        adapted = meta.adapt(new_x, new_y)

    Source: Finn et al. 2017, arXiv:1703.03400 (theta0); Li et al. 2017, arXiv:1707.09835 (rates). The derivative is
    exact, through batch and group norm too. Cost per task: about T + 1 forward and 3 T + 1 backward passes; memory
    grows with T. Limits: one input, one output, no dropout, the rules ``sgd``, ``momentum`` and ``weight_decay``. For
    everything else see :func:`rbml.keras.from_keras`.

    Args:
        model: a built Functional or Sequential model; ``fit`` trains its variables. Layers with ``trainable=False``
            stay as they are.
        strategy: how one step changes theta, made of parts of :mod:`rbml.strategy`; ``None`` means ``sgd(0.1)``.
        steps: T, how many inner steps.
        adapt: a pattern of the variables that a task adapts (``"dense_1.*"``); the others are learned across tasks.
        reset: a pattern of the adapted variables that are not learned: every task begins at their present values.
        statistics: which statistics batch norm uses on the queries: those of the queries (``"transductive"``), those of
            the support set (``"inductive"``), or the stored ones, in the inner loop too (``"running"``).
        seed: for numbers of the strategy that start at random.

    Attributes:
        model: the model, at theta0.
        phi: the leaves of phi by name, as Keras variables.
        adapted: the names of the variables that a task adapts.

    Raises:
        UsageError: for a model, a strategy or an option that it cannot work with, saying what can.
    """

    def __init__(
        self,
        model: Any,
        strategy: Strategy | Part | None = None,
        steps: int = 1,
        adapt: str = "*",
        reset: str = "",
        statistics: str = "transductive",
        seed: int = 0,
        **options: Any,
    ) -> None:
        """Set phi to its start."""
        super().__init__(**options)
        if steps < 0:
            raise UsageError(f"steps must be at least 0, not {steps}")
        if statistics not in STATISTICS:
            raise unknown("choice of batch-norm statistics", statistics, STATISTICS)
        check_model(model)
        self.model, self.strategy, self.steps, self.statistics = model, chain(strategy or sgd(0.1)), steps, statistics
        self.settings = {"adapt": adapt, "reset": reset, "seed": seed}
        check_rules(self.strategy)
        names = self._variables()
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(
                f"several variables of the model are named {', '.join(twice)}: give its layers other names"
            )
        self.adapted = self._named(adapt, "adapt", names)
        self.fixed = self._named(reset, "reset", self.adapted) if reset else []
        self.phi = self._start_of_phi(seed)
        self._checked: set[Any] = set()
        self._adapting: dict[Any, Any] = {}
        self.built = True

    # ------------------------------------------------------------------------------------------------- as Keras users

    def compile(self, optimizer: Any = "adam", loss: Any = None, jit_compile: Any = False, **options: Any) -> None:
        """Set what trains theta0 and phi, the loss of both loops, and the metrics of the queries.

        Args:
            optimizer: a Keras optimizer: the outer one. The inner one is the strategy.
            loss: a Keras loss.
            jit_compile: whether XLA compiles a step. On a CPU it makes dense networks 1.3 times as fast, and
                convolutions six times as slow.
            options: others of :meth:`keras.Model.compile`; metrics are over the queries of all tasks.
        """
        super().compile(optimizer=optimizer, loss=loss, jit_compile=jit_compile, **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved meta-model was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any, y: Any = None, **options: Any) -> Any:
        """Learn theta0 and phi, and return the history.

        Args:
            x: support sets, a pair of arrays (x, y) with shapes ``(B, n, ...)``; or tasks of rbml (``Episodes``, a
                ``Stream``), a task source (``batch_size`` tasks in each of ``steps_per_epoch`` steps), or anything else
                that ``keras.Model.fit`` takes and that yields ``((x, y), (query_x, query_y))``. Arrays ``(B, T, n,
                ...)`` are streams: inner step t sees batch t.
            y: queries, a pair like ``x``.
            options: others of :meth:`keras.Model.fit`; ``validation_data`` is ``(support, query)``.
        """
        x, y, options = self._given(x, y, options, "steps_per_epoch")
        held_out = options.get("validation_data")
        if is_tasks(held_out):
            options["validation_data"] = pairs(held_out, self._shape)
        return super().fit(x, y, **options)

    def evaluate(self, x: Any, y: Any = None, **options: Any) -> Any:
        """Adapt to every task and return the loss and the metrics of the queries; arguments as in :meth:`fit`."""
        x, y, options = self._given(x, y, options, "steps")
        return super().evaluate(x, y, **options)

    def adapt(self, x: Any, y: Any) -> Any:
        """Adapt to one task and return the adapted model: a new Keras model, independent of this one.

        Its batch norms keep the statistics of the support set (with ``statistics="running"`` the model's own), so that
        a prediction does not depend on the other examples of its batch.

        Args:
            x: support examples ``(n, ...)``; a stream is ``(T, n, ...)``.
            y: their targets.
        """
        support = (self._tensor(x), tf.convert_to_tensor(y))
        self._check(support[0][0] if self._inner()._streams(support[0]) else support[0])
        if id(self.loss) not in self._adapting:  # the loss that was compiled is part of the graph
            graph = tf.function(self._adapted_values, reduce_retracing=True, autograph=False)
            self._adapting = {id(self.loss): graph}
        values, others = self._adapting[id(self.loss)](support)
        adapted = keras.models.clone_model(self.model)
        for variable, value in zip(adapted.trainable_variables, values, strict=True):
            variable.assign(value)
        for variable, value in zip(adapted.non_trainable_variables, others, strict=True):
            variable.assign(value)
        return adapted

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the predictions of the model at theta0, or, given ``(support, x)``, those after adaptation."""
        if not isinstance(inputs, tuple | list):
            return self.model(inputs, training=training)
        support, x = inputs
        inner, m = self._inner(), self._m()
        return over_tasks(lambda one: inner.predictions(m, *one), (support, x), self._types[1])

    def learned(self) -> dict[str, Any]:
        """Return the numbers of the strategy within their bounds, by name: rates, decays.

        Each is an array of its own shape: ``()``, per step ``(T,)``, per element that of the variable.
        """
        found = {}
        for rule in self.strategy.rules:
            for name, number in rule.hypers.items():
                assert isinstance(number, Hyper)  # all rules here have no other
                for leaf, variable in self.phi.items():
                    if leaf.partition("/")[0] == f"{rule.name}.{name}":
                        found[leaf] = np.asarray(valid(number, variable.value))
        return found

    # ------------------------------------------------------------------------------------------------ as Keras calls it

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one outer step on a stack of tasks."""
        support, query, _ = self._unpacked(data)
        inner, m = self._inner(), self._m()
        learned = [name for name in m if name not in self.fixed and (name not in self.phi or self.phi[name].trainable)]
        kinds = (*self._types, {name: m[name].dtype for name in learned})
        loss, prediction, grads = over_tasks(
            lambda one: tuple(inner.gradient(m, learned, *one)), (support, query), kinds
        )
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)  # as it is when a saved one is read
        self.optimizer.apply_gradients(
            (tf.reduce_mean(grads[name], 0), variable) for name, variable in self._by_name().items() if name in learned
        )
        return self._measured(loss, prediction, query)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Measure a stack of tasks."""
        support, query, _ = self._unpacked(data)
        inner, m = self._inner(), self._m()
        loss, prediction = over_tasks(lambda one: inner.measure(m, *one), (support, query), self._types)
        return self._measured(loss, prediction, query)

    def get_config(self) -> dict[str, Any]:
        """Return what makes the same meta-model again; ``save`` writes it beside the variables."""
        own = {"steps": self.steps, "statistics": self.statistics, "strategy": plain(self.strategy)} | self.settings
        config: dict[str, Any] = super().get_config()
        return config | own | {"model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MetaModel:
        """Return the meta-model that a configuration describes."""
        made = {
            "model": keras.saving.deserialize_keras_object(config["model"], custom_objects),
            "strategy": from_plain(config["strategy"]),
        }
        return cls(**config | made)

    # ------------------------------------------------------------------------------------------------------- the pieces

    @property
    def _shape(self) -> tuple[int | None, ...]:
        return tuple(self.model.inputs[0].shape[1:])

    @property
    def _types(self) -> tuple[str, str]:
        """The types of a loss and of predictions."""
        return self.model.trainable_variables[0].dtype, self.model.outputs[0].dtype

    def _variables(self) -> list[str]:
        prefix = f"{self.model.name}/"
        return [variable.path.removeprefix(prefix).replace("/", ".") for variable in self.model.trainable_variables]

    def _named(self, pattern: str, option: str, names: list[str]) -> list[str]:
        if found := matching(names, pattern):
            return found
        raise UsageError(f"{option}={pattern!r} matches no variable; there are {', '.join(names) or 'none'}")

    def _start_of_phi(self, seed: int) -> dict[str, Any]:
        variables = dict(zip(self._variables(), self.model.trainable_variables, strict=True))
        like = {
            name: torch.zeros(tuple(variables[name].shape), dtype=getattr(torch, variables[name].dtype))
            for name in self.adapted
        }
        phi = {}
        starts = self.strategy.initial(like, self.steps, torch.Generator().manual_seed(seed))
        for leaves, learn in zip(starts, (True, False), strict=True):
            for name, leaf in leaves.items():
                phi[name] = self.add_weight(
                    name=name.replace("/", ".").removesuffix(".*"),  # what TensorFlow allows in a name
                    shape=tuple(leaf.shape),
                    dtype=str(leaf.dtype).removeprefix("torch."),
                    initializer=partial(_constant, leaf.numpy()),
                    trainable=learn,
                )
        return phi

    def _by_name(self) -> dict[str, Any]:
        return dict(zip(self._variables(), self.model.trainable_variables, strict=True)) | dict(self.phi)

    def _m(self) -> Tensors:
        return {name: variable.value for name, variable in self._by_name().items()}

    def _inner(self) -> InnerLoop:
        loss = getattr(self, "loss", None)
        if loss is None or isinstance(loss, list | dict):
            raise UsageError(
                f"MetaModel needs one loss, for its one output, not {loss!r}: call compile(optimizer, loss)"
            )
        function = keras.losses.get(loss)
        return InnerLoop(
            self.model, self.strategy, self.steps, function, self._variables(), self.adapted, self.statistics
        )

    def _adapted_values(self, support: Examples) -> tuple[list[Any], list[Any]]:
        inner, m = self._inner(), self._m()
        values = inner.adapt(m, support)
        others = [variable.value for variable in self.model.non_trainable_variables]
        if self.statistics != "running" and batch_norms(self.model):
            others = inner.fitted_statistics(values, inner._flat(support, None))
        return [values[name] for name in inner.names], others

    def _given(self, x: Any, y: Any, options: dict[str, Any], steps: str) -> tuple[Any, Any, dict[str, Any]]:
        if is_source(x):
            count = options.pop(steps, None)
            if count is None:
                raise UsageError(f"a task source has no end: say how many steps of batch_size tasks, {steps}=")
            return Drawn(x, options.pop("batch_size", None) or 8, count, self._shape), None, options
        if is_tasks(x):
            return *pairs(x, self._shape), options
        return x, y, options

    def _unpacked(self, data: Any) -> tuple[Examples, Examples, Any]:
        support, query, weight = keras.utils.unpack_x_y_sample_weight(data)
        if weight is not None or not all(
            isinstance(part, tuple | list) and len(part) == 2 for part in (support, query)
        ):
            raise UsageError(
                "MetaModel takes pairs of support sets and queries, fit((x, y), (query_x, query_y)) with arrays "
                "(tasks, examples, ...), and no sample weights"
            )
        (x, y), (query_x, query_y) = support, query
        x, query_x = self._tensor(x), self._tensor(query_x)
        self._check(query_x[0])
        return (x, y), (query_x, query_y), None

    def _tensor(self, x: Any) -> Any:
        return tf.cast(x, self.model.inputs[0].dtype)

    def _check(self, x: Any) -> None:
        shape = tuple(x.shape[1:])
        if shape not in self._checked:
            check_operators(self.model, x)
            self._checked.add(shape)

    def _measured(self, loss: Any, prediction: Any, query: Examples) -> dict[str, Any]:
        self._loss_tracker.update_state(loss)
        both = [tf.reshape(leaf, tf.concat([[-1], tf.shape(leaf)[2:]], 0)) for leaf in (query[1], prediction)]
        found: dict[str, Any] = self.compute_metrics(None, *both, None)
        return found


def _constant(value: Any, shape: Any, dtype: Any = None) -> Any:
    return tf.convert_to_tensor(value, dtype)
