"""Rows of numbers: columns of CSV files, standardised as the training rows were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rbml.data.batch import Inputs
from rbml.data.inputs.base import RawExamples, Shown
from rbml.data.inputs.rows import Row, check_columns, numbers, read_rows
from rbml.errors import DataError, UsageError


@dataclass(frozen=True)
class Table:
    """Numeric columns, each standardised: ``(value - mean) / std``.

    Args:
        columns: the names of the inputs, in order.
        mean: the mean of each column over the training rows.
        std: the standard deviation of each column over the training rows, above zero.
        targets: the names of the columns to predict.

    Raises:
        UsageError: if these do not fit together.

    >>> table = Table(["age", "dose"], [50.0, 2.0], [10.0, 0.5], ["score"])
    >>> table.ready(table.read([{"age": "60", "dose": "1.5"}]))
    tensor([[ 1., -1.]])
    """

    columns: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    targets: Sequence[str] = ("value",)

    kind = "table"

    def __post_init__(self) -> None:
        """Convert the lists of a saved file to tuples; refuse what does not fit together."""
        for name in ("columns", "mean", "std", "targets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not len(self.columns) == len(self.mean) == len(self.std) > 0:
            sizes = f"{len(self.columns)} columns, {len(self.mean)} means, {len(self.std)} standard deviations"
            raise UsageError(f"a table needs a mean and a standard deviation per column, not {sizes}")
        if not all(std > 0 for std in self.std):
            raise UsageError(f"standard deviations must be above zero, not {min(self.std)}")

    @classmethod
    def fitted(cls, columns: Sequence[str], values: NDArray[np.float64], targets: Sequence[str]) -> Table:
        """Return the table that standardises training rows ``(rows, columns)``; a constant column becomes zero."""
        mean, std = values.mean(0), values.std(0)
        # The deviation of a constant column is only rounding error: dividing by it would turn that into large values.
        std = np.where(std > 1e-9 * np.abs(mean).clip(1e-300), std, 1.0)
        return cls(columns, mean.tolist(), std.tolist(), targets)

    def read(self, raw: Sequence[Any]) -> Tensor:
        """Return rows as float64 ``(n, columns)``, in the units of the file.

        Args:
            raw: mappings from column to text or number, rows of a file, or sequences with one number per column.

        Raises:
            DataError: naming the row and the column of a cell that is missing or not a number.
        """
        return torch.from_numpy(numbers([self._row(one, place) for place, one in enumerate(raw, 1)], self.columns))

    def _row(self, one: Any, place: int) -> Row:
        if isinstance(one, Row):
            return one
        if isinstance(one, Mapping):
            return Row({str(name): str(value) for name, value in one.items()}, f"row {place}")
        values = list(one)
        if len(values) != len(self.columns):
            raise DataError(f"row {place} has {len(values)} numbers for {len(self.columns)} columns.")
        return Row({name: str(float(value)) for name, value in zip(self.columns, values, strict=True)}, f"row {place}")

    def ready(self, stored: Inputs) -> Tensor:
        """Return standardised float32 ``(..., columns)``."""
        assert isinstance(stored, Tensor)
        mean, std = (torch.tensor(each, dtype=torch.float64, device=stored.device) for each in (self.mean, self.std))
        return ((stored.double() - mean) / std).float()

    def show(self, stored: Inputs) -> Shown:
        """Return a mapping from column to number per example."""
        assert isinstance(stored, Tensor)
        return Shown("table", [dict(zip(self.columns, row, strict=True)) for row in stored.tolist()])

    def spec(self) -> dict[str, Any]:
        """Return the options as plain lists."""
        return {name: list(getattr(self, name)) for name in ("columns", "mean", "std", "targets")}

    def facts(self) -> dict[str, Any]:
        """Return how many inputs there are."""
        return {"inputs": len(self.columns)}

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Return the rows of CSV files, which need a column for every input and, in a support set, for every target.

        Other columns are ignored. The labels are one number per example, or a tuple of d numbers.

        Raises:
            DataError: naming the file and the line that cannot be used.
        """
        found: list[Row] = []
        for place in places:
            file = read_rows(place)
            check_columns([*self.columns, *(self.targets if labelled else ())], file.columns, str(file.path))
            found += file.rows
        if not found:
            raise DataError("no file was named: expected at least one CSV file with a header.")
        numbers(found, self.columns)  # raises here, where the line number is known
        labels = [tuple(row) for row in numbers(found, self.targets).tolist()] if labelled else None
        return RawExamples(found, labels, [row.place for row in found], self.targets)
