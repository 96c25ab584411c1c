"""Regularising terms of the inner objective: keep theta small, or close to its start, or predictions less confident."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Term, Values, part
from rbml.strategy.hyper import Hyper, Scalar, as_hyper, as_scalar
from rbml.strategy.views import TermInputs
from rbml.tree import Tree


def _sum_all(each: Tree) -> Tensor:
    return torch.stack([leaf.sum() for leaf in each.values()]).sum()


@part
def l2(strength: float | Hyper = 1e-3, name: str = "l2") -> Term:
    r"""Add half the squared norm of the adapted parameters.

    .. math:: \tfrac12 \sum_i \mathrm{strength}_i \, \theta_i^2

    Under plain SGD it equals :func:`rbml.strategy.weight_decay` placed first in the chain. Placed elsewhere, after
    momentum or a preconditioner, that rule has a different effect. Unlike the rule, the term is part of the objective,
    whose gradient all rules see.

    Args:
        strength: the weight of the term; a :class:`Hyper` may be learned, up to one value per parameter element
            (Lorraine et al. 2020).
        name: the name of the part in the strategy.
    """

    def value(values: Values, inputs: TermInputs) -> Tensor:
        strengths = values["strength"]
        return 0.5 * _sum_all({key: strengths[key] * leaf**2 for key, leaf in inputs.theta.items()})

    return Term(name, {"strength": as_hyper(strength)}, value, anchored=False)


@part
def l1(strength: float | Hyper = 1e-4, name: str = "l1") -> Term:
    r"""Add the sum of the absolute values of the adapted parameters.

    .. math:: \sum_i \mathrm{strength}_i \, |\theta_i|

    Source: Tibshirani 1996 (the lasso). Its derivative at zero is zero, as in PyTorch. Gradient steps make weights
    small but not exactly zero.

    Args:
        strength: the weight of the term; a :class:`Hyper` may be learned, up to one value per parameter element.
        name: the name of the part in the strategy.
    """

    def value(values: Values, inputs: TermInputs) -> Tensor:
        strengths = values["strength"]
        return _sum_all({key: strengths[key] * leaf.abs() for key, leaf in inputs.theta.items()})

    return Term(name, {"strength": as_hyper(strength)}, value, anchored=False)


@part
def proximal(strength: float | Hyper = 1.0, name: str = "proximal") -> Term:
    r"""Pull the adapted parameters back towards their start.

    .. math:: \tfrac12 \sum_i \mathrm{strength}_i \, (\theta_i - \theta_{0,i})^2

    Source: Rajeswaran et al. 2019 (iMAML), arXiv:1909.04630, whose lambda is the strength. The term makes theta0 part
    of the inner objective, so that implicit differentiation can see it.

    Args:
        strength: the weight of the term; a :class:`Hyper` may be learned, up to one value per parameter element.
        name: the name of the part in the strategy.
    """

    def value(values: Values, inputs: TermInputs) -> Tensor:
        strengths, theta0 = values["strength"], inputs.theta0
        return 0.5 * _sum_all({key: strengths[key] * (leaf - theta0[key]) ** 2 for key, leaf in inputs.theta.items()})

    return Term(name, {"strength": as_hyper(strength)}, value)


@part
def label_smoothing(rate: float | Scalar = 0.1, name: str = "label_smoothing") -> Term:
    r"""Mix the cross entropy to uniform targets into the support loss.

    .. math:: (1 - \mathrm{rate})\, L + \mathrm{rate} \cdot \frac1n \sum_i \frac1C \sum_c -\log p_{ic}

    Source: Szegedy et al. 2016, arXiv:1512.00567. It replaces the support loss L. If L is ``F.cross_entropy`` (the mean
    over examples, without class weights or ignored examples) it equals ``F.cross_entropy(label_smoothing=rate)``, both
    for labels and for probabilities as targets.

    Args:
        rate: the share of the target spread over all classes; learn it with ``Scalar(0.1, bounds=(0, 1))``.
        name: the name of the part in the strategy.

    Raises:
        UsageError: in use, if predictions are not class scores ``(n, C, ...)``.
    """

    def value(values: Values, inputs: TermInputs) -> Tensor:
        rate, logs = values["rate"][""], _log_probabilities(inputs, "label_smoothing")
        return (1 - rate) * inputs.objective() - rate * inputs.mean(inputs.over_classes(logs, mean=True))

    return Term(name, {"rate": as_scalar(rate)}, value, alone=True, anchored=False)


@part
def confidence(strength: float | Scalar = 0.1, name: str = "confidence") -> Term:
    r"""Subtract the entropy of the predictions, so that confident predictions are penalised.

    .. math:: \mathrm{strength} \cdot \frac1n \sum_i \sum_c p_{ic} \log p_{ic}

    Source: Pereyra et al. 2017, arXiv:1701.06548 (the confidence penalty), whose beta is the strength.

    Args:
        strength: the weight of the term; a negative one makes predictions more confident (entropy minimisation).
        name: the name of the part in the strategy.

    Raises:
        UsageError: in use, if predictions are not class scores ``(n, C, ...)``.
    """

    def value(values: Values, inputs: TermInputs) -> Tensor:
        logs = _log_probabilities(inputs, "confidence")
        return values["strength"][""] * inputs.mean(inputs.over_classes(logs.exp() * logs))

    return Term(name, {"strength": as_scalar(strength)}, value, anchored=False)


@part
def tempered(factor: float | Scalar = 1.0, name: str = "tempered") -> Term:
    r"""Multiply the predictions by a number before the support loss, and not before the query loss.

    .. math:: L(\mathrm{factor} \cdot f_\theta(x),\, y)

    It replaces the support loss. For class scores the factor is an inverse temperature: with a small one all classes
    are about equally likely in the inner objective, so that every example counts about the same, whereas the outer loss
    sees the predictions as they are.

    Args:
        factor: what the predictions are multiplied by; learn it with ``Scalar(1.0, bounds=(0, None))``.
        name: the name of the part in the strategy.
    """

    def value(values: Values, inputs: TermInputs) -> Tensor:
        prediction, present = values["factor"][""] * inputs.prediction, inputs.mask.get("class")
        if present is not None:  # the scores of absent classes are as low as numbers go
            prediction = torch.where(present, prediction, inputs.prediction)
        return inputs._replace(prediction=prediction).objective()

    return Term(name, {"factor": as_scalar(factor)}, value, alone=True, anchored=False)


def _log_probabilities(inputs: TermInputs, wanted_by: str) -> Tensor:
    """Return the logarithms of the class probabilities, with the classes along the second dimension."""
    if inputs.prediction.dim() < 2 or inputs.prediction.shape[1] < 2:
        shape = tuple(inputs.prediction.shape)
        raise UsageError(f"{wanted_by} needs class scores (n, C, ...), but the model predicts {shape}: leave it out")
    return torch.log_softmax(inputs.prediction, 1)
