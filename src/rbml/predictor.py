"""A model that has learned somebody's task, with what it needs to be used on raw things: files, rows, sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rbml.data.inputs import Modality
from rbml.data.targets import Target
from rbml.training.adapted_file import load_adapted


class Predictions(NamedTuple):
    """What was predicted.

    Attributes:
        records: plain values per example, as the target decodes them.
        output: of the model, ``(n, ...)``.
    """

    records: list[dict[str, Any]]
    output: Tensor


@dataclass(frozen=True)
class Predictor:
    """An adapted model, with how its inputs are read and its outputs are decoded.

    Args:
        adapted: the model, as ``learner.adapt`` returns it.
        modality: how raw things become what it takes.
        target: what its outputs mean.
        names: of the classes or values, in the order of its outputs.
    """

    adapted: nn.Module
    modality: Modality
    target: Target
    names: Sequence[str]

    @staticmethod
    def load(path: str | Path) -> Predictor:
        """Return the predictor of a file that ``rbml adapt`` wrote.

        Raises:
            CheckpointError: if the file is damaged, or is not one of these.
        """
        file = load_adapted(Path(path))
        return Predictor(file.adapted, file.setting.modality, file.setting.target, file.names)

    def __call__(self, raw: Sequence[Any]) -> Predictions:
        """Predict raw things, each by itself: whatever else is in the call makes no difference, to the bit.

        Args:
            raw: paths of pictures, rows of a table ...: what the modality reads.

        Raises:
            DataError: naming what cannot be read.
        """
        with torch.no_grad():
            # One at a time: not even rounding shall depend on the others.
            rows = [self.adapted(self.modality.ready(self.modality.read([one]))) for one in raw]
        output = torch.cat(rows) if rows else torch.empty(0, len(self.names))
        return Predictions([record for row in rows for record in self.target.decode(row, self.names)], output)
