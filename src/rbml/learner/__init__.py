"""The learner: a model that has learned how to learn, and the model that it becomes on one task."""

from rbml.learner.binding import Statistics
from rbml.learner.learner import Adapted, Evaluation, Learner

__all__ = ["Adapted", "Evaluation", "Learner", "Statistics"]
