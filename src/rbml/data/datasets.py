"""Data sets of PyTorch (``torch.utils.data.Dataset``) as arrays: read once, so that tasks can be drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rbml.data.batch import Inputs
from rbml.errors import DataError, UsageError


class MapStyle(Protocol):
    """A data set with a length whose examples are got by number, each a pair ``(x, y)``."""

    def __len__(self) -> int:
        """Return how many examples there are."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return an example."""
        ...


def read_dataset(dataset: MapStyle) -> tuple[Inputs, list[Any]]:
    """Return the examples of a data set as arrays, and their labels.

    Args:
        dataset: its examples are pairs: an input (a tensor, an array, a picture of PIL, a number, or a dictionary of
            these) and a label (a number or a text). Where it has ``classes``, as those of torchvision do, a whole
            number is the place of its name there.

    Returns:
        ``x`` ``(N, ...)`` or a tree of such, pictures as uint8 ``(N, channels, height, width)``; N labels.

    Raises:
        UsageError: if it is not such a data set.
        DataError: naming the example that cannot be read, or is of another shape than the first.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise UsageError(
            f"expected a Labelled, a pair (x, y) of arrays, or a map-style data set (with a length and examples by "
            f"number), not {type(dataset).__name__}; of a DataLoader give its dataset"
        )
    if not len(dataset):
        raise UsageError(f"the data set {type(dataset).__name__} has no examples.")
    inputs: list[dict[str, Tensor]] = []
    labels: list[Any] = []
    for index, (x, y) in _pairs(dataset):
        leaves = {name: _tensor(leaf, index) for name, leaf in (x if isinstance(x, dict) else {"": x}).items()}
        if inputs and _form(leaves) != _form(inputs[0]):
            raise DataError(
                f"example {index} of the data set is {_form(leaves)}, but example 0 is {_form(inputs[0])}: tasks need "
                "examples of one shape and type; let the data set's transform make them so"
            )
        inputs.append(leaves)
        labels.append(_label(y, index))
    stacked = {name: torch.stack([leaves[name] for leaves in inputs]) for name in inputs[0]}
    names = getattr(dataset, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(one, int) and 0 <= one < len(names) for one in labels):
        labels = [names[one] for one in labels]
    return stacked[""] if list(stacked) == [""] else stacked, labels


def _pairs(dataset: MapStyle) -> Iterator[tuple[int, tuple[Any, Any]]]:
    for index in range(len(dataset)):
        try:
            item = dataset[index]
        except Exception as error:
            raise DataError(f"example {index} of the data set cannot be read: {error!r}.") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            came = f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, tuple | list | dict) else "")
            raise UsageError(
                f"example {index} of the data set is {came}: expected a pair (input, label); wrap the data set in one "
                "that returns pairs"
            )
        yield index, (item[0], item[1])


def _tensor(leaf: Any, index: int) -> Tensor:
    """Return an input as a tensor; a picture, which has its channels last, with its channels first."""
    if isinstance(leaf, Tensor):
        return leaf.detach().cpu()
    picture = hasattr(leaf, "getbands")
    try:
        tensor = torch.from_numpy(np.array(leaf))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the input of example {index} is a {type(leaf).__name__}, which is no array of numbers ({error}): let the "
            "data set's transform make it a tensor"
        ) from None
    if picture:
        tensor = tensor[None] if tensor.dim() == 2 else tensor.movedim(-1, 0)
    return tensor


def _label(y: Any, index: int) -> Any:
    """Return a label as a plain number or text."""
    if isinstance(y, Tensor | np.ndarray | np.generic):
        if tuple(y.shape) not in ((), (1,)):
            shape = tuple(y.shape)
            raise UsageError(f"the label of example {index} has the shape {shape}: expected one class per example.")
        y = y.item()
    if not isinstance(y, int | float | str):
        raise UsageError(f"the label of example {index} is a {type(y).__name__}: expected a number or a text.")
    if isinstance(y, float) and not y.is_integer():
        raise UsageError(
            f"the label of example {index} is {y}: these are real values and not classes; for real values put the "
            "examples in groups, rbml.tasks.PerGroup"
        )
    return y


def _form(leaves: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(leaf.shape)} of {leaf.dtype}".strip() for name, leaf in leaves.items())
