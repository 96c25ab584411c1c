"""A saved Keras model as the model of a run: ``--model keras:FILE.keras``."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

from rbml.errors import DataError, UsageError
from rbml.keras.checks import last_layer, softmax_of
from rbml.keras.convert import KerasModule, from_keras
from rbml.keras.graph import copied


def from_file(file: str, outputs: int, shape: tuple[int, ...]) -> KerasModule:
    """Return a saved Keras model with one output per class; a softmax at its end is left out.

    A dense layer at the end that has another number of outputs starts anew with one per class. All other layers keep
    their saved values.

    Args:
        file: what ``model.save("FILE.keras")`` wrote.
        outputs: the number of classes, or of regression targets.
        shape: of an example: ``(height, width, channels)`` of a picture, or ``(inputs,)``.

    Raises:
        DataError: if the file is not there, or Keras cannot read it.
        UsageError: if the model does not fit the data, or cannot be converted.
    """
    model, name = _read(file), Path(file).name
    _check_inputs(name, getattr(model, "input_shape", None), shape)
    model, fresh = _with_outputs(model, name, outputs)
    module = from_keras(model, logits=softmax_of(model) is not None, channels_first=len(shape) == len("hwc"))
    if fresh:
        _layer(module, fresh).reset_parameters()  # drawn from PyTorch's generator, as every other model is
    return module


def _check_inputs(name: str, taken: Any, shape: tuple[int, ...]) -> None:
    """Refuse a model that does not take examples of this shape.

    Raises:
        UsageError: saying what it takes, and what to do.
    """
    one = isinstance(taken, tuple) and len(taken) == len(shape) + 1
    if one and all(own in (None, given) for own, given in zip(taken[1:], shape, strict=True)):
        return
    pictures = (
        "let it begin with keras.Input((height, width, channels)), and keras.layers.Flatten() where rows are needed; "
        "--size and --channels say how pictures are read"
    )
    way = f"let it begin with keras.Input(({', '.join(map(str, shape))},))" if len(shape) == 1 else pictures
    raise UsageError(f"{name} takes {taken}, and the examples have the shape {shape}: {way}")


def _read(file: str) -> Any:
    """Return the model in a file.

    Raises:
        DataError: if the file is not there, or Keras cannot read it.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise DataError(f"there is no Keras model {file!r}: write --model keras:FILE.keras, saved by model.save()")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a file of Keras 3: save the model with model.save('FILE.keras')")
    try:
        return keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"Keras cannot read {path} ({reason}): save it with model.save('FILE.keras')") from error


def _with_outputs(model: Any, name: str, outputs: int) -> tuple[Any, str]:
    """Return a model with this number of outputs, and the name of its last layer if that has no values yet.

    Raises:
        UsageError: if the number of outputs cannot be changed.
    """
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and shape[1:] == (outputs,):
        return model, ""
    last = last_layer(model)
    if not (isinstance(last, keras.layers.Dense) and isinstance(shape, tuple) and len(shape) == 2):
        raise UsageError(
            f"{name} returns {shape}, and a task has {outputs} outputs: end the model with keras.layers.Dense, which "
            "gets one output per class"
        )
    own = copied(model, {last.name: outputs})
    changed = {id(variable) for variable in last.weights}
    for new, old in zip(own.weights, model.weights, strict=True):
        if id(old) not in changed:
            new.assign(old.value.detach())
    return own, last.name


def _layer(module: KerasModule, name: str) -> Any:
    """Return the counterpart of the layer of this name."""
    return next(module.counterpart(path) for path in module.layers if module.original(path).name == name)
