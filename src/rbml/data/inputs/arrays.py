"""Arrays as they are: tensors, or whatever can be made into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml.data.batch import Inputs, each_input
from rbml.data.inputs.base import RawExamples, Shown
from rbml.errors import DataError, UsageError


def as_floats(leaf: Tensor) -> Tensor:
    """Return uint8 ``0 .. 255`` as float32 ``0 .. 1``; every other type stays as it is."""
    return leaf.float().div_(255) if leaf.dtype == torch.uint8 else leaf


@dataclass(frozen=True)
class Arrays:
    """The user's own tensors: uint8 is taken for pictures and becomes float ``0 .. 1``; other types stay as they are.

    >>> Arrays().ready(Arrays().read([[1.0, 2.0], [3.0, 4.0]]))
    tensor([[1., 2.],
            [3., 4.]])
    """

    kind = "arrays"

    def read(self, raw: Sequence[Any]) -> Tensor:
        """Return arrays of one shape as a stack ``(n, ...)``.

        Raises:
            DataError: for what holds no numbers, or arrays of unequal shapes.
        """
        try:
            found = [torch.as_tensor(one) for one in raw]
        except (TypeError, ValueError) as error:
            raise DataError(f"arrays must hold numbers: {error}") from None
        if shapes := {tuple(one.shape) for one in found[1:]} - {tuple(one.shape) for one in found[:1]}:
            raise DataError(f"arrays must have one shape, not {tuple(found[0].shape)} and {min(shapes)}: resize them.")
        return torch.stack(found)

    def ready(self, stored: Inputs) -> Inputs:
        """Return floats ``0 .. 1`` for uint8, and anything else as it is."""
        return each_input(as_floats, stored)

    def show(self, stored: Inputs) -> Shown:
        """Return arrays in the shape of pictures as pictures, and others as tables of numbered columns."""
        ready = self.ready(stored)
        if isinstance(ready, Tensor) and ready.dim() == 4 and ready.shape[1] in (1, 3):
            return Shown("picture", as_pictures(ready))
        leaves = {"": ready} if isinstance(ready, Tensor) else {f"{name} ": leaf for name, leaf in ready.items()}
        rows = zip(*(leaf.reshape(len(leaf), -1).tolist() for leaf in leaves.values()), strict=True)
        named = [
            {
                f"{name}{place}": value
                for name, row in zip(leaves, parts, strict=True)
                for place, value in enumerate(row)
            }
            for parts in rows
        ]
        return Shown("table", named)

    def spec(self) -> dict[str, Any]:
        """Return an empty table: there are no options."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return nothing: only the user knows the shape that a model needs."""
        return {}

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Refuse: arrays have no files.

        Raises:
            UsageError: always, with what to do instead.
        """
        raise UsageError(
            "this run learns from arrays in memory, which no file holds: use learner.adapt(x, y) in Python, or train "
            "on a source such as folder:PATH"
        )


def as_pictures(ready: Tensor) -> list[Any]:
    """Return pictures ``(n, 1 or 3, h, w)`` as arrays ``(h, w)`` or ``(h, w, 3)``, one per example."""
    grey = ready.shape[1] == 1
    return [(one[0] if grey else one.permute(1, 2, 0)).cpu().numpy() for one in ready]
