"""What a modality is: how raw inputs are read into tensors, prepared for a model, and shown in a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from rbml.data.batch import Inputs


class Shown(NamedTuple):
    """Stored inputs as a report can draw them.

    Attributes:
        kind: how they are drawn: ``"picture"`` (an array ``(height, width)`` or ``(height, width, 3)`` in 0 .. 1),
            ``"text"`` or ``"table"`` (a mapping from column to number).
        values: one per example.
    """

    kind: Literal["picture", "text", "table"]
    values: Sequence[Any]


class RawExamples(NamedTuple):
    """A user's examples, found in files or folders but not read yet.

    Attributes:
        raw: the raw inputs: paths, rows or strings.
        labels: their raw labels; ``None`` if they have none.
        names: a name for each example.
        targets: names for the numbers of a label; for classes, the labels are the names.
        skipped: files that were found beside them and are of no use, such as notes.
        places: the file and line of each example, where the names do not say it; else empty.
    """

    raw: Sequence[Any]
    labels: Sequence[Any] | None
    names: Sequence[str]
    targets: Sequence[str] | None = None
    skipped: Sequence[str] = ()
    places: Sequence[str] = ()


class Modality(Protocol):
    """How raw inputs (files, strings, rows) become tensors for a model. A frozen dataclass of plain options."""

    @property
    def kind(self) -> str:
        """Its name in :data:`rbml.data.inputs.ALL`."""
        ...

    def read(self, raw: Sequence[Any]) -> Inputs:
        """Read raw inputs into compact storage ``(n, ...)``: uint8 pictures, padded ids, rows of numbers."""
        ...

    def ready(self, stored: Inputs) -> Inputs:
        """Return the model's inputs from stored ones, which may have any leading dimensions."""
        ...

    def show(self, stored: Inputs) -> Shown:
        """Return stored inputs ``(n, ...)`` as a report can draw them."""
        ...

    def spec(self) -> dict[str, Any]:
        """Return its options as plain values: ``ALL[kind](**spec)`` is the same modality. Saved with every model."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what a model must know, named as its constructor's arguments: ``{"channels": 1, "size": 28}``."""
        ...

    def find(self, places: Sequence[Path | str], labelled: bool) -> RawExamples:
        """Return the raw examples of places that a user named: folders of pictures, files of rows or sentences.

        Args:
            places: the paths on the command line.
            labelled: whether they must have labels (a support set), or are to be predicted.

        Raises:
            DataError: naming the file and line that cannot be used.
        """
        ...
