"""A saved Keras model as a model like any other."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from torch import nn

_HOME = "rbml.keras"
"""Stands above this package, and is loaded only if a Keras model is asked for."""


def keras(
    outputs: int, name: str = "", kind: str = "arrays", size: int = 0, channels: int = 0, inputs: int = 0
) -> nn.Module:
    """A model of Keras 3 that was saved as a file, keras:FILE.keras (Chollet et al. 2015): it runs on PyTorch.

    A dense layer at its end that has another number of outputs starts anew with one per class, and a softmax there is
    left out. Its own values are theta0 at the start. ``rbml.keras.to_keras`` gives a Keras model back.

    Args:
        outputs: the number of classes, or of regression targets.
        name: the file; it is written after a colon.
        kind: the kind of examples, of :data:`rbml.data.inputs.ALL`.
        size: height and width, if they are pictures.
        channels: of pictures, 1 or 3.
        inputs: how many numbers an example has otherwise.

    Raises:
        UsageError: if Keras is not installed or runs on another backend, or the model does not fit the data.
        DataError: if the file cannot be read.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"  # nothing else works here, whatever Keras's own settings say
    import_module(_HOME).from_keras  # noqa: B018  refuses to go on without Keras, or on another backend
    shape = (size, size, channels) if kind == "pictures" else (inputs,)
    made: nn.Module = import_module(f"{_HOME}.file").from_file(name, outputs, shape)
    return made
