"""Tensors as they are: the modality of data that no file describes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml.data.batch import Inputs, each_input
from rbml.data.inputs.base import RawExamples, Shown
from rbml.errors import DataError


@dataclass(frozen=True)
class Arrays:
    """Tensors as they are; uint8 becomes ``0 .. 1``."""

    kind = "arrays"

    def read(self, raw: Sequence[Any]) -> Inputs:
        """Return a stack of tensors."""
        return torch.stack([torch.as_tensor(one) for one in raw])

    def ready(self, stored: Inputs) -> Inputs:
        """Return floating-point numbers."""
        return each_input(as_shares, stored)

    def show(self, stored: Inputs) -> Shown:
        """Return the numbers of each example as a table."""
        assert isinstance(stored, Tensor)
        return Shown("table", [dict(enumerate(row.flatten().tolist())) for row in stored])

    def spec(self) -> dict[str, Any]:
        """Return nothing: it has no options."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return nothing: the model must know the shape by itself."""
        return {}

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Refuse: arrays are not found in files.

        Raises:
            DataError: always.
        """
        raise DataError("this run was trained on arrays of a program: no file can be read for it")


def as_shares(leaf: Tensor) -> Tensor:
    """Return uint8 as ``0 .. 1``, and anything else as it is."""
    return leaf.float().div_(255) if leaf.dtype == torch.uint8 else leaf
