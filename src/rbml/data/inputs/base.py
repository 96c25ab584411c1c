"""What a modality is: how raw things become tensors, are made ready for a model, and are shown again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from rbml.data.batch import Inputs


class Shown(NamedTuple):
    """Stored inputs as a report can draw them.

    Attributes:
        kind: how: ``"picture"`` (an array ``(height, width)`` or ``(height, width, 3)`` in 0 .. 1), ``"text"`` or
            ``"table"`` (a mapping from column to number).
        values: one per example.
    """

    kind: Literal["picture", "text", "table"]
    values: Sequence[Any]


class RawExamples(NamedTuple):
    """What a user has put somewhere.

    Attributes:
        raw: the raw things.
        labels: their raw labels; ``None`` where there are none.
        names: what to call each.
        targets: what to call the numbers of a label, where the labels themselves do not say it.
    """

    raw: Sequence[Any]
    labels: Sequence[Any] | None
    names: Sequence[str]
    targets: Sequence[str] | None = None


class Modality(Protocol):
    """How raw things (files, strings, rows) become what a model takes. A frozen dataclass of plain options."""

    @property
    def kind(self) -> str:
        """Its name in :data:`rbml.data.inputs.ALL`."""
        ...

    def read(self, raw: Sequence[Any]) -> Inputs:
        """Read raw things into compact storage ``(n, ...)``: uint8 pictures, padded ids, rows of numbers."""
        ...

    def ready(self, stored: Inputs) -> Inputs:
        """Return what the model takes, of stored inputs with any leading dimensions."""
        ...

    def show(self, stored: Inputs) -> Shown:
        """Return stored inputs ``(n, ...)`` as a report can draw them."""
        ...

    def spec(self) -> dict[str, Any]:
        """Return its options as plain values: ``ALL[kind](**spec)`` is the same modality. Saved with every model."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what a model must know, by the names of the makers' arguments: ``{"channels": 1, "size": 28}``."""
        ...

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Return the raw examples of places that a user named: folders of pictures, files of rows or sentences.

        Args:
            places: what stands on the command line.
            labelled: whether they must have labels (a support set), or are to be predicted.

        Raises:
            DataError: naming the file and line that cannot be used.
        """
        ...
