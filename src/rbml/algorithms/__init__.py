"""Algorithms as presets: each a choice of strategy, of what is adapted, and of hypergradient, and none with a loop."""

from __future__ import annotations

from collections.abc import Callable

from rbml.algorithms.baselines import finetune, nearest_centroid, nearest_neighbour, pretrain, scratch
from rbml.algorithms.heads import protomaml, protonet, r2d2
from rbml.algorithms.maml import anil, boil, cavia, fomaml, maml
from rbml.algorithms.rates import Annealing, maml_plus_plus, meta_sgd, warp_grad
from rbml.learner import Learner

ALL: dict[str, Callable[..., Learner]] = {
    "maml": maml,
    "fomaml": fomaml,
    "anil": anil,
    "boil": boil,
    "meta_sgd": meta_sgd,
    "maml++": maml_plus_plus,
    "warp_grad": warp_grad,
    "cavia": cavia,
    "protonet": protonet,
    "protomaml": protomaml,
    "r2d2": r2d2,
}

__all__ = [
    "ALL",
    "Annealing",
    "anil",
    "boil",
    "cavia",
    "finetune",
    "fomaml",
    "maml",
    "maml_plus_plus",
    "meta_sgd",
    "nearest_centroid",
    "nearest_neighbour",
    "pretrain",
    "protomaml",
    "protonet",
    "r2d2",
    "scratch",
    "warp_grad",
]
