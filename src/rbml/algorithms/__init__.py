"""Algorithms as presets: each chooses a strategy, what is adapted, and a hypergradient; none has a loop of its own."""

from __future__ import annotations

from collections.abc import Callable

from rbml.algorithms.baselines import finetune, nearest_centroid, nearest_neighbour, pretrain, scratch
from rbml.algorithms.continual import anml, la_maml, oml, streaming_lda
from rbml.algorithms.generated import alfa, l2f, meta_curvature, metal
from rbml.algorithms.heads import protomaml, protonet, r2d2, ridge_cv
from rbml.algorithms.maml import anil, boil, cavia, fomaml, imaml, maml, reptile
from rbml.algorithms.rates import Annealing, maml_plus_plus, meta_sgd, warp_grad
from rbml.algorithms.regression import alpaca, ridge_regression
from rbml.errors import UsageError
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
    "ridge_cv": ridge_cv,
    "ridge_regression": ridge_regression,
    "alpaca": alpaca,
    "oml": oml,
    "anml": anml,
    "la_maml": la_maml,
    "streaming_lda": streaming_lda,
    "finetune": finetune,
}

TARGETS: dict[str, tuple[str, ...]] = {
    "protonet": ("classes",),
    "protomaml": ("classes",),
    "r2d2": ("classes",),
    "ridge_cv": ("classes",),
    "oml": ("classes",),
    "anml": ("classes",),
    "streaming_lda": ("classes",),
    "ridge_regression": ("real",),
    "alpaca": ("real",),
}
"""For which kinds of targets (names of :data:`rbml.data.targets.ALL`) a preset is, where it is not for all of them."""


def check_target(name: str, kind: str) -> None:
    """Refuse a preset for a kind of target that it is not made for.

    Args:
        name: of :data:`ALL`.
        kind: of the target, such as ``"classes"``.

    Raises:
        UsageError: naming the presets that are.

    >>> check_target("alpaca", "real")
    """
    if kind in TARGETS.get(name, (kind,)):
        return
    others = ", ".join(sorted(other for other in ALL if kind in TARGETS.get(other, (kind,))))
    raise UsageError(
        f"{name} is for targets of the kind {' or '.join(TARGETS[name])}, and these are {kind}: choose one of {others}"
    )


__all__ = [
    "ALL",
    "TARGETS",
    "Annealing",
    "alfa",
    "alpaca",
    "anil",
    "anml",
    "boil",
    "cavia",
    "check_target",
    "finetune",
    "fomaml",
    "imaml",
    "l2f",
    "la_maml",
    "maml",
    "maml_plus_plus",
    "meta_curvature",
    "meta_sgd",
    "metal",
    "nearest_centroid",
    "nearest_neighbour",
    "oml",
    "pretrain",
    "protomaml",
    "protonet",
    "r2d2",
    "reptile",
    "ridge_cv",
    "ridge_regression",
    "scratch",
    "streaming_lda",
    "warp_grad",
]
