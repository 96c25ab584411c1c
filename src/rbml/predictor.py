"""A model that was adapted to a user's task, with what it needs to predict for raw inputs: files, rows, sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rbml.data.batch import Batch
from rbml.data.inputs import Modality
from rbml.data.targets import Target
from rbml.devices import CPU
from rbml.errors import DataError, UsageError
from rbml.learner import Adapted
from rbml.training.adapted_file import load_adapted
from rbml.training.adapting import Outcome, Trust, adapt, joined, labelled
from rbml.training.going_on import Grown, grow
from rbml.training.learned import Learned, of_file
from rbml.training.unknown import RATE


class Predictions(NamedTuple):
    """What was predicted.

    Attributes:
        records: plain values per example, as the target decodes them; for classes also ``unknown``: whether the example
            seems to be of none of the classes.
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
        trust: how far to trust it: the temperature of its probabilities, and what is unknown to it.
        unknown_rate: which share of examples of known classes may be called unknown; ``None`` calls none so.
        learned: the learner that it comes from, with its file; ``None`` where it is not known.
    """

    adapted: nn.Module
    modality: Modality
    target: Target
    names: Sequence[str]
    trust: Trust = Trust()  # noqa: RUF009  frozen
    unknown_rate: float | None = RATE
    learned: Learned | None = None

    @staticmethod
    def load(path: str | Path, unknown_rate: float | None = RATE, device: torch.device = CPU) -> Predictor:
        """Return the predictor of a file that ``rbml adapt`` wrote.

        Args:
            path: the file.
            unknown_rate: as in the class.
            device: where it is to predict, and to learn from more examples.

        Raises:
            CheckpointError: if the file is damaged, or was not written by ``rbml adapt``.
        """
        file = load_adapted(Path(path))
        learned = None if file.kept is None else of_file(file, str(path), device)
        setting, trust = file.setting, Trust.from_content(file.trust)
        return Predictor(
            file.adapted.to(device), setting.modality, setting.target, file.names, trust, unknown_rate, learned
        )

    def __call__(self, raw: Sequence[Any]) -> Predictions:
        """Predict each raw input by itself: the others in the call make no difference, not even by rounding.

        Args:
            raw: whatever the modality reads, such as paths of pictures or rows of a table.

        Raises:
            DataError: naming what cannot be read.
        """
        found = [self._one(one) for one in raw]
        output = torch.cat([row for _, row in found]) if found else torch.empty(0, len(self.names))
        return Predictions([record for record, _ in found], output)

    def each(self, raw: Sequence[Any]) -> Iterator[dict[str, Any] | DataError]:
        """Yield the record of each raw input, or the error for one that cannot be read."""
        for one in raw:
            try:
                yield self._one(one)[0]
            except DataError as error:
                yield error

    def _one(self, raw: Any) -> tuple[dict[str, Any], Tensor]:
        # One at a time: in a batch, rounding would depend on the other inputs.
        x = self.modality.ready(self.modality.read([raw]))
        with torch.no_grad():
            row: Tensor = self.adapted(x).cpu()
        (record,) = self.target.decode(row / self.trust.temperature, self.names)
        if self.target.kind == "classes" and self.unknown_rate is not None:
            record["unknown"] = self._is_unknown(x)
        return record, row

    def _is_unknown(self, x: Any) -> bool:
        memory, usual = self.trust.memory, self.trust.usual
        if memory is None or usual is None or self.unknown_rate is None:
            return False
        assert isinstance(self.adapted, Adapted)
        return memory.score(self.adapted, x).item() > usual.threshold(self.unknown_rate)

    def with_examples(self, raw: Sequence[Any], labels: Sequence[Any]) -> Predictor:
        """Return a predictor that has learned from more examples, which may be of new classes.

        Args:
            raw: whatever the modality reads.
            labels: one per example: names of classes, or values.

        Raises:
            UsageError: if the learner or the examples so far are not known.
            DataError: naming what cannot be read.
        """
        if self.learned is None or self.learned.file is None:
            raise UsageError(
                "this predictor does not know the examples that it learned from: load it from a file that rbml adapt "
                "wrote, with this version"
            )
        kept = self.learned.file.kept
        outcome: Outcome | Grown
        if kept is not None and kept.examples is None:
            y, names = labelled(self.learned, labels)
            outcome = grow(self.learned, Batch(self.modality.read(raw), y), names, self.trust.prior)
            return self._grown(outcome, names)
        examples, names = joined(self.learned, self.modality.read(raw), labels)
        outcome = adapt(self.learned, examples, names, self.trust.prior, comparing=False)
        return self._grown(outcome, names)

    def _grown(self, outcome: Outcome | Grown, names: Sequence[str]) -> Predictor:
        return replace(self, adapted=outcome.adapted, names=names, trust=outcome.trust, learned=outcome.relearned())
