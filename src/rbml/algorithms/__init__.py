"""Algorithms as presets: each a choice of strategy, of what is adapted, and of hypergradient, and none with a loop."""

from rbml.algorithms.baselines import nearest_neighbour, scratch
from rbml.algorithms.maml import anil, fomaml, maml, meta_sgd

ALL = {
    "maml": maml,
    "fomaml": fomaml,
    "meta_sgd": meta_sgd,
    "anil": anil,
}

__all__ = ["ALL", "anil", "fomaml", "maml", "meta_sgd", "nearest_neighbour", "scratch"]
