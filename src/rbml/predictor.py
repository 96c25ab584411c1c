"""A model that was adapted to a user's task, with what it needs to predict for raw inputs: files, rows, sentences."""

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
    """An adapted model that reads its own inputs and decodes its own outputs.

    Args:
        adapted: the model, as ``learner.adapt`` returns it.
        modality: how raw inputs become tensors.
        target: what its outputs mean.
        names: the names of the classes or values, in the order of its outputs.
    """

    adapted: nn.Module
    modality: Modality
    target: Target
    names: Sequence[str]

    @staticmethod
    def load(path: str | Path) -> Predictor:
        """Return the predictor of a file that ``rbml adapt`` wrote.

        Raises:
            CheckpointError: if the file is damaged, or was not written by ``rbml adapt``.
        """
        file = load_adapted(Path(path))
        return Predictor(file.adapted, file.setting.modality, file.setting.target, file.names)

    def __call__(self, raw: Sequence[Any]) -> Predictions:
        """Predict each raw input by itself: the others in the call make no difference, not even by rounding.

        Args:
            raw: whatever the modality reads, such as paths of pictures or rows of a table.

        Raises:
            DataError: naming what cannot be read.
        """
        with torch.no_grad():
            # One at a time: in a batch, rounding would depend on the other inputs.
            rows = [self.adapted(self.modality.ready(self.modality.read([one]))) for one in raw]
        output = torch.cat(rows) if rows else torch.empty(0, len(self.names))
        return Predictions([record for row in rows for record in self.target.decode(row, self.names)], output)
