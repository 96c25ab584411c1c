"""The learner (a model that learns how to learn) and the adapted model that it makes for one task."""

from rbml.learner.adapted import Adapted
from rbml.learner.binding import Statistics
from rbml.learner.evaluation import Evaluation
from rbml.learner.learner import Learner
from rbml.learner.options import Curriculum, Execution, Head, Initial, Phase

__all__ = ["Adapted", "Curriculum", "Evaluation", "Execution", "Head", "Initial", "Learner", "Phase", "Statistics"]
