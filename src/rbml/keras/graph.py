"""A copy of a Keras model that is used as a program: how its layers are connected, without the values of variables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import keras
import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.keras.layers import WITHOUT_ACTIVATION, Counterpart, Linear, counterpart
from rbml.keras.precision import precision

_RUNNING: ContextVar[Mapping[str, Counterpart] | None] = ContextVar("_RUNNING", default=None)
"""The counterparts of the module that runs now, by name: copies of one module share a graph, also in threads."""


class Graph:
    """The layers of a Keras model and their connections; copies of a module share it.

    Args:
        model: a copy that nobody else uses.
        source: the model of which it is a copy, whose paths name the layers: Keras numbers some layers anew.

    Attributes:
        layers: the layers with variables of their own, by name.
        paths: the paths of the variables in the source, by the id of the variable.
    """

    def __init__(self, model: Any, source: Any) -> None:
        """Send the calls of every layer with variables to its counterpart."""
        self.model = model
        self.dtype = getattr(torch, model.variable_dtype)
        self.paths = {id(new): old.path for new, old in zip(model.weights, source.weights, strict=True)}
        self.layers = dict(_layers(model, self.paths, source.name))
        for name, layer in self.layers.items():
            _route(layer, name)

    def counterparts(self) -> dict[str, Counterpart]:
        """Return new counterparts of all layers with variables of their own."""
        return {name: counterpart(layer, *own_variables(layer), self.paths) for name, layer in self.layers.items()}

    def run(self, counterparts: Mapping[str, Counterpart], x: Tensor | dict[str, Tensor]) -> Any:
        """Return the model's output for ``x`` with the values in the counterparts."""
        first = next(iter(x.values())) if isinstance(x, dict) else x
        values = [leaf for module in counterparts.values() for leaf in module.parameters(recurse=False)]
        dtype = values[0].dtype if values else self.dtype
        token = _RUNNING.set(counterparts)
        try:
            with precision(dtype, self.dtype), keras.device(str(first.device)), _scope(counterparts):
                return self.model(x, training=False)
        finally:
            _RUNNING.reset(token)

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        """Return itself."""
        return self


def copied(model: Any, units: Mapping[str, int] | None = None) -> Any:
    """Return a copy of a Keras model, with its values, that shares nothing with it.

    Args:
        model: the model.
        units: other numbers of outputs for dense layers, by name; the copy then has the values of its initializers.

    Raises:
        UsageError: if the model does not say how to make it again.
    """

    def one(layer: Any) -> Any:
        config = layer.get_config()
        changed = isinstance(layer, keras.layers.Dense) and layer.name in (units or {})
        return type(layer).from_config(config | {"units": (units or {})[layer.name]} if changed else config)

    try:
        if _is_functional(model):
            own = keras.models.clone_model(model, clone_function=one, recursive=True)
        elif units:
            raise UsageError(f"the class cannot be made with other numbers of outputs: {dict(units)}")
        else:
            own = type(model).from_config(model.get_config())
        if not own.built:
            own.build_from_config(model.get_build_config() or {})
        if not units:
            _take_values(own, model)
    except Exception as error:  # whatever a class raises that cannot be made again from its configuration
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"the model {model.name} ({type(model).__name__}) cannot be copied from its configuration ({reason}): give "
            "its class a method get_config() that returns the arguments of __init__, and make sub-layers in __init__ "
            "or build(), or use keras.Sequential or keras.Model(inputs, outputs)"
        ) from error
    for layer in own._flatten_layers():
        if hasattr(layer, "use_cudnn"):
            layer.use_cudnn = False  # cuDNN's recurrent layers have no second derivative
    return own


def _take_values(own: Any, model: Any) -> None:
    """Give a copy the values of a model.

    Raises:
        ValueError: if it has other variables.
    """
    if [variable.shape for variable in own.weights] != [variable.shape for variable in model.weights]:
        raise ValueError(f"the copy has {len(own.weights)} variables, and the model {len(model.weights)}")
    for new, old in zip(own.weights, model.weights, strict=True):
        new.assign(old.value.detach())


def _is_functional(model: Any) -> bool:
    """Return whether a model is made of layers that are connected, and not by a class of its own."""
    return isinstance(model, keras.Sequential) or type(model).__name__ == "Functional"


def own_variables(layer: Any) -> tuple[list[Any], list[Any]]:
    """Return the variables that a layer itself has, without those of its sub-layers: trainable ones, and the rest."""
    seeds = {id(seed.state) for seed in layer._seed_generators}
    fixed = [variable for variable in layer._non_trainable_variables if id(variable) not in seeds]
    return list(layer._trainable_variables), fixed


def _layers(model: Any, paths: Mapping[int, str], root: str) -> Iterator[tuple[str, Any]]:
    """Yield the layers with variables of their own, and their paths, with dots and without the name of the model.

    Raises:
        UsageError: if two layers have one name.
    """
    seen: dict[str, Any] = {}
    for layer in model._flatten_layers():
        variables = [variable for group in own_variables(layer) for variable in group]
        if not variables:
            continue
        path, _, _ = paths[id(variables[0])].rpartition("/")
        name = path.removeprefix(f"{root}/").replace("/", ".")
        if name in seen:
            raise UsageError(
                f"two layers of the model have the path {path!r}, {type(seen[name]).__name__} and "
                f"{type(layer).__name__}: give them different names with name="
            )
        seen[name] = layer
        yield name, layer


def _route(layer: Any, name: str) -> None:
    """Let a layer's counterpart compute its output while a converted model runs."""
    original: Callable[..., Any] = layer.call

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        running = _RUNNING.get()
        return original(*args, **kwargs) if running is None else running[name].enter(args, kwargs)

    layer.__dict__["call"] = call  # Keras and PyTorch look at attributes that are set in the usual way


def _scope(counterparts: Mapping[str, Counterpart]) -> Any:
    """Return a scope in which Keras reads the values of its variables from the counterparts."""
    scope = keras.StatelessScope(initialize_variables=False)
    for module in counterparts.values():
        if isinstance(module, Linear):
            continue  # it reads its own, perhaps with another number of rows
        for leaf in module.original.leaves:
            scope.add_update((leaf.variable, leaf.to_keras(getattr(module, leaf.name))))
    return scope


def leave_out_activation(layer: Any) -> None:
    """Let a layer of a copied model return its output before its activation; its configuration stays as it is."""
    if isinstance(layer, keras.layers.Dense):
        layer.__dict__[WITHOUT_ACTIVATION] = True
    else:
        layer.__dict__["call"] = lambda inputs, *args, **kwargs: inputs
