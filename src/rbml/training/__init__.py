"""Training, evaluation, and the files of a run."""

from rbml.training.evaluator import Score, evaluate
from rbml.training.interrupt import Interrupt
from rbml.training.recipe import Recipe
from rbml.training.run_folder import RunFolder
from rbml.training.trainer import Progress, train

__all__ = ["Interrupt", "Progress", "Recipe", "RunFolder", "Score", "evaluate", "train"]
