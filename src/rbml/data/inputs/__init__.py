"""Modalities: how raw things become tensors, one file each. ``ALL`` is the table of them."""

from typing import Any

from rbml.data.inputs.arrays import Arrays
from rbml.data.inputs.base import Modality
from rbml.data.inputs.pictures import Pictures
from rbml.data.inputs.table import Table

__all__ = ["ALL", "Arrays", "Modality", "Pictures", "Table"]

ALL: dict[str, Any] = {"pictures": Pictures, "arrays": Arrays, "table": Table}
