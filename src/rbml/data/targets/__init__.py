"""Target kinds: what comes out of a model, and how it is judged; one file each. ``ALL`` is the table of them."""

from rbml.data.targets.base import Baseline, Loss, Metric, Target

__all__ = ["Baseline", "Loss", "Metric", "Target"]
