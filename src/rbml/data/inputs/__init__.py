"""Modalities: how raw things become tensors, one file each. ``ALL`` is the table of them."""

from rbml.data.inputs.base import Modality
from rbml.data.inputs.table import Table

__all__ = ["ALL", "Modality", "Table"]

ALL: dict[str, type[Modality]] = {"table": Table}
