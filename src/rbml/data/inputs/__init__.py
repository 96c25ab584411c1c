"""Modalities (pictures, rows of a table, arrays): how raw inputs become tensors, one file each. ``ALL`` lists them."""

from collections.abc import Callable

from rbml.data.inputs.arrays import Arrays
from rbml.data.inputs.base import Modality, RawExamples, Shown
from rbml.data.inputs.pictures import Pictures
from rbml.data.inputs.table import Table
from rbml.data.inputs.text import Text

__all__ = ["ALL", "Arrays", "Modality", "Pictures", "RawExamples", "Shown", "Table", "Text"]

ALL: dict[str, Callable[..., Modality]] = {"pictures": Pictures, "arrays": Arrays, "table": Table, "text": Text}
