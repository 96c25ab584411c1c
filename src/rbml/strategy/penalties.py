"""Terms of the inner objective: what keeps theta small or near, and predictions less sure."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Term, TermInputs, Values, part
from rbml.strategy.hyper import Hyper, Scalar, as_hyper, as_scalar
from rbml.tree import Tree


def _total(each: Tree) -> Tensor:
    return torch.stack([leaf.sum() for leaf in each.values()]).sum()


@part
def l2(strength: float | Hyper = 1e-3, name: str = "l2") -> Term:
    r"""Add half the squared norm of what is adapted.

    .. math:: \tfrac12 \sum_i \mathrm{strength}_i \, \theta_i^2

    Under plain SGD it equals :func:`rbml.strategy.weight_decay` placed before it; under momentum or a preconditioner in
    another place it does not, and unlike that rule it is part of the objective whose gradient is taken.

    Args:
        strength: the weight of the term; a :class:`Hyper` may be learned, down to one a weight (Lorraine et al. 2020).
        name: what it is filed under.
    """

    def value(values: Values, scene: TermInputs) -> Tensor:
        strengths = values["strength"]
        return 0.5 * _total({key: strengths[key] * leaf**2 for key, leaf in scene.theta.items()})

    return Term(name, {"strength": as_hyper(strength)}, value, anchored=False)


@part
def l1(strength: float | Hyper = 1e-4, name: str = "l1") -> Term:
    r"""Add the sum of the absolute values of what is adapted.

    .. math:: \sum_i \mathrm{strength}_i \, |\theta_i|

    Source: Tibshirani 1996 (the lasso). At zero its derivative is zero, as PyTorch has it; gradient steps make weights
    small, not exactly zero.

    Args:
        strength: the weight of the term; a :class:`Hyper` may be learned, down to one a weight.
        name: what it is filed under.
    """

    def value(values: Values, scene: TermInputs) -> Tensor:
        strengths = values["strength"]
        return _total({key: strengths[key] * leaf.abs() for key, leaf in scene.theta.items()})

    return Term(name, {"strength": as_hyper(strength)}, value, anchored=False)


@part
def proximal(strength: float | Hyper = 1.0, name: str = "proximal") -> Term:
    r"""Pull what is adapted back to where it started.

    .. math:: \tfrac12 \sum_i \mathrm{strength}_i \, (\theta_i - \theta_{0,i})^2

    Source: Rajeswaran et al. 2019 (iMAML), arXiv:1909.04630, whose lambda is the strength. With it theta0 enters the
    inner objective, and so an implicit hypergradient sees it.

    Args:
        strength: the weight of the term; a :class:`Hyper` may be learned, down to one a weight.
        name: what it is filed under.
    """

    def value(values: Values, scene: TermInputs) -> Tensor:
        strengths, theta0 = values["strength"], scene.theta0
        return 0.5 * _total({key: strengths[key] * (leaf - theta0[key]) ** 2 for key, leaf in scene.theta.items()})

    return Term(name, {"strength": as_hyper(strength)}, value)


@part
def label_smoothing(rate: float | Scalar = 0.1, name: str = "label_smoothing") -> Term:
    r"""Mix into the support loss the cross entropy to targets of equal probability.

    .. math:: (1 - \mathrm{rate})\, L + \mathrm{rate} \cdot \frac1n \sum_i \frac1C \sum_c -\log p_{ic}

    Source: Szegedy et al. 2016, arXiv:1512.00567. It takes the place of the support loss L. Where L is
    ``F.cross_entropy`` (the mean over examples, without weights or ignored ones) it equals
    ``F.cross_entropy(label_smoothing=rate)``, for labels and for probabilities.

    Args:
        rate: how much of the target is spread over all classes; learn it with ``Scalar(0.1, bounds=(0, 1))``.
        name: what it is filed under.

    Raises:
        UsageError: where predictions are not scores of classes ``(n, C, ...)``.
    """

    def value(values: Values, scene: TermInputs) -> Tensor:
        rate, logs = values["rate"][""], _log_probabilities(scene, "label_smoothing")
        return (1 - rate) * scene.objective() - rate * scene.mean(_over_classes(logs, scene, mean=True))

    return Term(name, {"rate": as_scalar(rate)}, value, alone=True, anchored=False)


@part
def confidence(strength: float | Scalar = 0.1, name: str = "confidence") -> Term:
    r"""Subtract the entropy of the predictions: being sure costs.

    .. math:: \mathrm{strength} \cdot \frac1n \sum_i \sum_c p_{ic} \log p_{ic}

    Source: Pereyra et al. 2017, arXiv:1701.06548 (the confidence penalty), whose beta is the strength.

    Args:
        strength: the weight of the term; below zero it makes predictions surer (entropy minimisation).
        name: what it is filed under.

    Raises:
        UsageError: where predictions are not scores of classes ``(n, C, ...)``.
    """

    def value(values: Values, scene: TermInputs) -> Tensor:
        logs = _log_probabilities(scene, "confidence")
        return values["strength"][""] * scene.mean(_over_classes(logs.exp() * logs, scene))

    return Term(name, {"strength": as_scalar(strength)}, value, anchored=False)


def _over_classes(each: Tensor, scene: TermInputs, mean: bool = False) -> Tensor:
    """Return the sum, or the mean, over the classes ``(n, C, ...)`` that the task has."""
    present = scene.mask.get("class")
    if present is None:
        return each.mean(1) if mean else each.sum(1)
    present = present.reshape(1, -1, *[1] * (each.dim() - 2))
    total = torch.where(present, each, 0).sum(1)
    return total / present.sum(1) if mean else total


def _log_probabilities(scene: TermInputs, wanted_by: str) -> Tensor:
    """Return the logarithm of the probability of every class, which are along the second dimension."""
    if scene.prediction.dim() < 2 or scene.prediction.shape[1] < 2:
        shape = tuple(scene.prediction.shape)
        raise UsageError(f"{wanted_by} needs scores of classes (n, C), and the model predicts {shape}: leave it out")
    return torch.log_softmax(scene.prediction, 1)
