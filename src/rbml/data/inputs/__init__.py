"""Modalities (pictures, rows of a table, arrays): how raw inputs become tensors, one file each. ``ALL`` lists them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rbml.data.inputs.arrays import Arrays
from rbml.data.inputs.base import Modality, RawExamples, Shown
from rbml.data.inputs.embedded import Embedded
from rbml.data.inputs.pictures import Pictures
from rbml.data.inputs.table import Table
from rbml.data.inputs.text import Text

__all__ = ["ALL", "Arrays", "Embedded", "Modality", "Pictures", "RawExamples", "Shown", "Table", "Text", "made"]


def made(kind: str, spec: Mapping[str, Any]) -> Modality:
    """Return the modality that its name and its options describe; a ``KeyError`` for an unknown one."""
    return ALL[kind](**spec)


def _embedded(
    inner: Mapping[str, Any],
    backbone: str,
    fingerprint: str = "",
    size: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Modality:
    return Embedded(made(**inner), backbone, fingerprint, size, mean, std)


ALL: dict[str, Callable[..., Modality]] = {
    "pictures": Pictures,
    "arrays": Arrays,
    "table": Table,
    "text": Text,
    "embedded": _embedded,
}
