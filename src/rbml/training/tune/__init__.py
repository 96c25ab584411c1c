"""Tune the strategy of one's own training run by hypergradients, and find the examples that hurt it."""

from rbml.training.tune.progress import Progress
from rbml.training.tune.rating import Rated, RateProgress, rate
from rbml.training.tune.tuning import Candidate, Tuned, split, tune
from rbml.training.tune.usual import usual_strategy

__all__ = ["Candidate", "Progress", "RateProgress", "Rated", "Tuned", "rate", "split", "tune", "usual_strategy"]
