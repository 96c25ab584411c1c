"""Algorithms whose head is made from the support set, so that it fits any number of classes."""

from __future__ import annotations

from typing import Any

from torch import nn

from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.strategy import Hyper, Scalar, chain, prototype, ridge, sgd
from rbml.strategy import ridge_cv as ridge_cv_head


def protonet(model: nn.Module, scale: float | Scalar = 1.0, steps: int = 0, **options: Any) -> Learner:
    r"""Learn features in which the nearest class mean is the right class; nothing is adapted by gradients.

    .. math:: p(y = k \mid x) \propto \exp(-\mathrm{scale}\, \|f_\theta(x) - c_k\|^2)

    Snell, Swersky, Zemel 2017 (arXiv:1703.05175), whose features are those before the model's own head. Differs: the
    paper trains 20-way models with 60-way tasks; give the tasks those ways.

    Args:
        model: the model; its head is not used.
        scale: inverse temperature of the distances; 1 in the paper.
        steps: gradient steps on the head after it is made; 0 in the paper.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(prototype(scale), sgd(0.1)), steps, **({"adapt": "head"} | options))


def protomaml(
    model: nn.Module, lr: float | Hyper = 0.1, steps: int = 5, scale: float | Scalar = 1.0, **options: Any
) -> Learner:
    """Learn as MAML does, but start each task with a head made from its class means.

    Triantafillou et al. 2020 (arXiv:1903.03096), with exact second derivatives, also through the making of the head.

    Args:
        model: the model; its own head is not used.
        lr: the inner learning rate.
        steps: T, inner steps.
        scale: inverse temperature of the distances; 1 in the paper.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(prototype(scale), sgd(lr)), steps, **options)


def r2d2(
    model: nn.Module,
    strength: float | Scalar = Scalar(1.0, bounds=(0, None)),  # noqa: B008  frozen
    scale: float | Scalar = Scalar(10.0),  # noqa: B008
    steps: int = 0,
    **options: Any,
) -> Learner:
    """Learn features, and how strongly to regularise, for a head that is a ridge regression in closed form.

    Bertinetto, Henriques, Torr, Vedaldi 2019 (arXiv:1805.08136). Learned: the features, the strength, and the scale of
    the logits. Differs: the paper's network is a wider Conv4 with features of two depths.

    Args:
        model: the model; its own head is not used.
        strength: of the ridge.
        scale: of the logits.
        steps: gradient steps on the head after it is made; 0 in the paper.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(ridge(strength, scale), sgd(0.1)), steps, **({"adapt": "head"} | options))


def ridge_cv(
    model: nn.Module,
    strength: float | Scalar = Scalar(0.1, bounds=(0, None)),  # noqa: B008  frozen
    spread: float | Scalar = Scalar(1.0, bounds=(0, None)),  # noqa: B008
    scale: float | Scalar = Scalar(10.0),  # noqa: B008
    steps: int = 0,
    **options: Any,
) -> Learner:
    """Learn features for a ridge regression in closed form that finds its strength on each support set.

    R2-D2 (Bertinetto et al. 2019, arXiv:1805.08136) with one difference: there, one strength is learned for all tasks;
    here, a prior of it, and each task leaves out its own examples to choose (:func:`rbml.strategy.ridge_cv`). It suits
    tasks of few and of many shots alike, and features that are used without any training.

    Args:
        model: the model; its own head is not used.
        strength: the middle of the strengths that are tried, as a part of the mean squared norm of the features.
        spread: how many decades from there a good strength usually lies.
        scale: of the logits.
        steps: gradient steps on the head after it is made.
        **options: any other of :class:`rbml.Learner`.
    """
    start = ridge_cv_head(strength, spread, scale)
    return assemble(model, chain(start, sgd(0.1)), steps, **({"adapt": "head"} | options))
