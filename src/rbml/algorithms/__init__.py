"""Algorithms as presets: each chooses a strategy, what is adapted, and a hypergradient; none has a loop of its own."""

from __future__ import annotations

from collections.abc import Callable

from rbml.algorithms.baselines import finetune, nearest_centroid, nearest_neighbour, pretrain, scratch
from rbml.algorithms.generated import alfa, l2f, meta_curvature, metal
from rbml.algorithms.heads import protomaml, protonet, r2d2
from rbml.algorithms.maml import anil, boil, cavia, fomaml, imaml, maml, reptile
from rbml.algorithms.rates import Annealing, maml_plus_plus, meta_sgd, warp_grad
from rbml.algorithms.regression import alpaca, ridge_regression
from rbml.learner import Learner

ALL: dict[str, Callable[..., Learner]] = {
    "maml": maml,
    "fomaml": fomaml,
    "reptile": reptile,
    "imaml": imaml,
    "anil": anil,
    "boil": boil,
    "meta_sgd": meta_sgd,
    "maml++": maml_plus_plus,
    "meta_curvature": meta_curvature,
    "alfa": alfa,
    "l2f": l2f,
    "metal": metal,
    "warp_grad": warp_grad,
    "cavia": cavia,
    "protonet": protonet,
    "protomaml": protomaml,
    "r2d2": r2d2,
    "ridge_regression": ridge_regression,
    "alpaca": alpaca,
}

__all__ = [
    "ALL",
    "Annealing",
    "alfa",
    "alpaca",
    "anil",
    "boil",
    "cavia",
    "finetune",
    "fomaml",
    "imaml",
    "l2f",
    "maml",
    "maml_plus_plus",
    "meta_curvature",
    "meta_sgd",
    "metal",
    "nearest_centroid",
    "nearest_neighbour",
    "pretrain",
    "protomaml",
    "protonet",
    "r2d2",
    "reptile",
    "ridge_regression",
    "scratch",
    "warp_grad",
]
