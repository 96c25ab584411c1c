"""Training, evaluation, and the files of a run."""

from rbml.recipe import Recipe
from rbml.training.evaluator import Score, evaluate
from rbml.training.interrupt import Interrupt
from rbml.training.progress import Progress
from rbml.training.run_folder import RunFolder
from rbml.training.strategy_file import LearnedStrategy, export_strategy, load_strategy
from rbml.training.trainer import train

__all__ = [
    "Interrupt",
    "LearnedStrategy",
    "Progress",
    "Recipe",
    "RunFolder",
    "Score",
    "evaluate",
    "export_strategy",
    "load_strategy",
    "train",
]
