"""The PyTorch counterparts of Keras layers: each holds the variables of one layer under the layer's name.

A Keras layer that is called while a converted model runs hands its inputs to its counterpart, so that everything in
rbml that acts on a layer of a model (dropout before the head, statistics of batch norm, a head made from the support
set) acts on Keras layers too. Counterparts of dense, convolutional and batch-norm layers keep their numbers as PyTorch
does:

================================ ====================== ====================================================
Keras layer                      variable               parameter or buffer here
================================ ====================== ====================================================
Dense                            kernel (in, out)       weight (out, in), in an ``nn.Linear``
Conv1D, Conv2D, Conv3D           kernel (*size, i, o)   weight (o, i, *size)
BatchNormalization               gamma, beta            weight, bias, in a batch norm of PyTorch
                                 moving_mean, _variance running_mean, running_var
every other layer                as it is               the same name and shape
================================ ====================== ====================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import keras
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rbml.errors import UsageError

WITHOUT_ACTIVATION = "rbml_without_activation"
"""The attribute of a copied dense layer whose activation is left out."""


class Leaf(NamedTuple):
    """One variable of a Keras layer.

    Attributes:
        variable: the Keras variable of the copied model.
        path: of the variable in the model that was copied.
        name: the name of its counterpart in the module.
        axes: the permutation from Keras's axes to those of the counterpart; empty for none.
        fixed: whether it is never trained, such as statistics.
    """

    variable: Any
    path: str
    name: str
    axes: tuple[int, ...]
    fixed: bool

    def to_torch(self, value: Tensor) -> Tensor:
        """Return a value of the variable as the counterpart has it."""
        return value.permute(self.axes) if self.axes else value

    def to_keras(self, value: Tensor, lead: int = 0) -> Tensor:
        """Return a value of the counterpart as Keras has it.

        Args:
            value: the value.
            lead: the number of leading dimensions besides those of the variable.
        """
        if not self.axes:
            return value
        back = [self.axes.index(axis) + lead for axis in range(len(self.axes))]
        return value.permute(*range(lead), *back)


class Original:
    """A layer of the copied Keras model, which all copies of a counterpart share: it holds no value that is used.

    Args:
        layer: the layer.
        leaves: its own variables.
    """

    def __init__(self, layer: Any, leaves: list[Leaf]) -> None:
        """Remember how the layer computes."""
        self.layer, self.leaves, self.call = layer, leaves, partial(type(layer).call, layer)

    def __deepcopy__(self, memo: dict[int, Any]) -> Original:
        """Return itself."""
        return self

    @torch.no_grad()
    def draw(self, module: nn.Module) -> None:
        """Draw the numbers of a counterpart anew by Keras's initializers, seeded by PyTorch's global generator."""
        for leaf in self.leaves:
            if (initializer := _initializer(self.layer, leaf.variable.name)) is not None:
                value = leaf.to_torch(initializer(tuple(leaf.variable.shape), dtype="float32"))
                getattr(module, leaf.name).copy_(value)


class Plain(nn.Module):
    """The counterpart of a layer that computes as Keras does, with these values for its variables."""

    def __init__(self, original: Original) -> None:
        """Take the values of the layer."""
        super().__init__()
        self.original = original
        _fill(self, original.leaves)

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the layer's output from what Keras calls it with."""
        return self(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute as Keras does."""
        return self.original.call(*args, **kwargs)

    def reset_parameters(self) -> None:
        """Draw the numbers anew, as Keras does."""
        self.original.draw(self)


class PlainNorm(Plain):
    """The same for a normalisation layer, which rbml finds by its class."""


class Linear(nn.Linear):
    """The counterpart of ``Dense``; the activation is applied outside of it."""

    def __init__(self, original: Original) -> None:
        """Take the values of the layer."""
        inputs, outputs = original.leaves[0].variable.shape
        super().__init__(inputs, outputs, bias=len(original.leaves) > 1, device="meta")
        self.original = original
        _fill(self, original.leaves)

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the layer's output from what Keras calls it with."""
        output, layer = self(_first(args, kwargs)), self.original.layer
        if layer.activation in (None, keras.activations.linear) or WITHOUT_ACTIVATION in layer.__dict__:
            return output
        return layer.activation(output)

    def reset_parameters(self) -> None:
        """Draw the numbers anew, as Keras does."""
        # PyTorch's own __init__ calls this before there is anything to draw.
        if "original" in self.__dict__:
            self.original.draw(self)


class BatchNorm(_BatchNorm):
    """The counterpart of ``BatchNormalization``, for inputs whose channels are in dimension 1."""

    def __init__(self, original: Original) -> None:
        """Take the values of the layer."""
        (features,) = original.leaves[-1].variable.shape
        super().__init__(features, original.layer.epsilon, affine=False)
        self.original = original
        _fill(self, original.leaves)

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the layer's output from what Keras calls it with.

        Raises:
            UsageError: for inputs of which Keras masks a part.
        """
        if kwargs.get("mask") is not None:
            raise UsageError(
                f"{self.original.layer.path} is a batch norm whose inputs have a mask (of Embedding(mask_zero=True) or "
                "Masking): its statistics of a batch are not implemented here; use LayerNormalization, or leave the "
                "mask out"
            )
        axis = self.original.layer.axis
        output: Tensor = self(_first(args, kwargs).movedim(axis, 1))
        return output.movedim(1, axis)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the statistics of the batch in training, and by the stored ones otherwise."""
        stored = (None, None) if self.training else (self.running_mean, self.running_var)
        return F.batch_norm(x, *stored, self.weight, self.bias, self.training, 0.0, self.eps)

    def reset_parameters(self) -> None:
        """Draw the numbers anew, as Keras does."""
        # PyTorch's own __init__ calls this before there is anything to draw.
        if "original" in self.__dict__:
            self.original.draw(self)


Counterpart = Plain | Linear | BatchNorm


def counterpart(layer: Any, trained: list[Any], fixed: list[Any], paths: Mapping[int, str]) -> Counterpart:
    """Return the counterpart of a Keras layer.

    Args:
        layer: the layer.
        trained: its own trainable variables, of any ``trainable`` state.
        fixed: its own other variables.
        paths: the paths of variables in the model that was copied, by the id of the variable.
    """
    kind, names = _kind(layer)
    leaves = []
    for at, variable in enumerate([*trained, *fixed]):
        name, axes = names.get(variable.name, (variable.name, ()))
        leaves.append(Leaf(variable, paths[id(variable)], name, axes, fixed=at >= len(trained)))
    return kind(Original(layer, leaves))


Names = dict[str, tuple[str, tuple[int, ...]]]
"""For a Keras variable the name and the axes of its counterpart."""


def _kind(layer: Any) -> tuple[type[Counterpart], Names]:
    """Return the class of a layer's counterpart, and what is called or ordered differently there."""
    own = layer.compute_dtype == layer.variable_dtype and layer.quantization_mode is None
    own = own and not getattr(layer, "lora_enabled", False)
    if own and type(layer) is keras.layers.Dense:
        return Linear, {"kernel": ("weight", (1, 0))}
    # A batch norm that is not trainable always uses its stored statistics.
    if own and isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
        return BatchNorm, _BATCH_NORM
    if own and type(layer) in (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D):
        return Plain, {"kernel": ("weight", (layer.rank + 1, layer.rank, *range(layer.rank)))}
    return PlainNorm if type(layer).__name__.endswith("Normalization") else Plain, {}


_BATCH_NORM: Names = {
    "gamma": ("weight", ()),
    "beta": ("bias", ()),
    "moving_mean": ("running_mean", ()),
    "moving_variance": ("running_var", ()),
}


def _fill(module: nn.Module, leaves: list[Leaf]) -> None:
    """Give a counterpart the values of its variables: parameters, or buffers for what is never trained."""
    for leaf in leaves:
        value = leaf.to_torch(leaf.variable.value.detach()).clone(memory_format=torch.contiguous_format)
        if leaf.name in module._buffers or leaf.fixed:
            module.register_buffer(leaf.name, value)
        else:
            parameter = nn.Parameter(value, requires_grad=bool(leaf.variable.trainable))
            module._parameters.pop(leaf.name, None)
            module.register_parameter(leaf.name, parameter)


def _initializer(layer: Any, variable: str) -> Any:
    """Return a layer's initializer of a variable, with a new seed; ``None`` for what has none, such as statistics."""
    found = getattr(layer, f"{variable}_initializer", None) or getattr(layer, _INITIALIZERS.get(variable, ""), None)
    if found is None:
        return None
    config = found.get_config()
    if "seed" in config:
        config["seed"] = int(torch.randint(2**31, ()))
    return type(found).from_config(config)


_INITIALIZERS = {
    "recurrent_kernel": "recurrent_initializer",
    "depthwise_kernel": "depthwise_initializer",
    "pointwise_kernel": "pointwise_initializer",
    "moving_variance": "moving_variance_initializer",
}
"""The initializers that are not called like their variable."""


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    found: Tensor = args[0] if args else kwargs["inputs"]
    return found
