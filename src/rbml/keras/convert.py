"""Convert a Keras model (PyTorch backend) to a PyTorch module that any learner can adapt and differentiate."""

from __future__ import annotations

from typing import Any

import keras
from torch import Tensor, nn

from rbml.errors import UsageError
from rbml.keras.checks import check_model, check_pictures, named, softmax_of
from rbml.keras.graph import Graph, copied, leave_out_activation
from rbml.keras.layers import Counterpart, Leaf


class KerasModule(nn.Module):
    """A Keras model as a PyTorch module: its variables are parameters and buffers, named by their Keras paths.

    Made by :func:`from_keras`. In every pass Keras sees ``training=False``; only batch norm follows the mode of the
    module: statistics of the batch in training (nothing is updated), the stored ones otherwise.

    Args:
        graph: the layers and their connections.
        probabilities: the layer whose softmax is the output; empty if there is none. A learner refuses it with a loss
            of logits.
        channels_first: whether pictures come as ``(n, c, h, w)``, while the Keras model has channels last.
    """

    def __init__(self, graph: Graph, probabilities: str = "", channels_first: bool = False) -> None:
        """Make a counterpart of each layer with variables."""
        super().__init__()
        self.graph, self.probabilities, self.layers = graph, probabilities, list(graph.layers)
        self.channels_first = channels_first
        for name, module in sorted(graph.counterparts().items(), key=lambda one: one[0].count(".")):
            _put(self, name, module)

    def forward(self, x: Tensor | None = None, /, **inputs: Tensor) -> Any:
        """Return the prediction.

        Args:
            x: the input of a model with one input, ``(n, ...)``.
            **inputs: the inputs of a model with several, by the names of its ``keras.Input``.
        """
        if self.channels_first and x is not None:
            x = x.permute(0, 2, 3, 1)
        counterparts = {name: self.counterpart(name) for name in self.layers}
        return self.graph.run(counterparts, inputs if x is None else x)

    def counterpart(self, name: str) -> Counterpart:
        """Return the counterpart of one layer."""
        found: Any = self.get_submodule(name)
        return found  # type: ignore[no-any-return]

    def original(self, name: str) -> Any:
        """Return one layer of the copied Keras model."""
        return self.counterpart(name).original.layer

    def leaves(self) -> dict[str, Leaf]:
        """Return the Keras variables by the names of their parameters and buffers."""
        return {f"{name}.{leaf.name}": leaf for name in self.layers for leaf in self.counterpart(name).original.leaves}


def from_keras(model: keras.Model, logits: bool = False, channels_first: bool = False) -> KerasModule:
    """Return a Keras model as a PyTorch module; the model is copied and left untouched.

    Every strategy, engine and algorithm of rbml runs on the result. Names are the paths of the Keras variables, with
    dots, without the name of the model: ``dense/kernel`` of a model is ``dense.weight`` (:mod:`rbml.keras.layers`).

    Args:
        model: a built Keras 3 model on the PyTorch backend: Sequential, functional, or a subclass with
            ``get_config()``.
        logits: whether to leave out the softmax at the end of the model, as ``F.cross_entropy`` expects;
            :func:`to_keras` puts it back.
        channels_first: whether the module takes pictures ``(n, c, h, w)``, as PyTorch and the data sources of rbml have
            them, for a model with one input ``(n, h, w, c)``. The Keras model stays as it is.

    Raises:
        UsageError: naming the layer that cannot be converted, and what to do.
    """
    check_model(model)
    if channels_first:
        check_pictures(model)
    own = copied(model)
    softmax = softmax_of(own)
    if logits and softmax is None:
        raise UsageError("logits=True leaves out a softmax at the end of the model, and there is none: leave it out")
    if logits:
        leave_out_activation(softmax)
    return KerasModule(Graph(own, model), "" if logits or softmax is None else named(softmax), channels_first)


def _put(root: nn.Module, name: str, module: nn.Module) -> None:
    """Make a module the submodule with this dotted name."""
    owner = root
    *path, last = name.split(".")
    try:
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        owner.add_module(last, module)
    except KeyError as error:
        raise UsageError(f"a layer cannot be named {name!r}, which PyTorch uses: give it another name=") from error
