"""Target kinds: what a model predicts, and how that is scored; one file each. ``ALL`` is the table of them."""

from rbml.data.targets.base import Baseline, Loss, Metric, Target
from rbml.data.targets.classes import CLASSES
from rbml.data.targets.real import REAL, real
from rbml.data.targets.units import Units

__all__ = ["ALL", "CLASSES", "REAL", "Baseline", "Loss", "Metric", "Target", "Units", "real"]

ALL: dict[str, Target] = {"classes": CLASSES, "real": REAL}
