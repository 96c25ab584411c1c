"""Algorithms in which a learned map or a small network shapes the step: Meta-Curvature, ALFA, L2F, MeTAL."""

from __future__ import annotations

from typing import Any

from torch import nn

from rbml.algorithms.options import assemble
from rbml.learner import Learner
from rbml.strategy import Hyper, attenuate, chain, kronecker, sgd
from rbml.strategy import alfa as alfa_rule
from rbml.strategy import metal as metal_term


def meta_curvature(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 1, **options: Any) -> Learner:
    r"""Learn an initialisation and, for every tensor, a Kronecker-factored matrix that its gradient is multiplied by.

    .. math:: \theta_{t+1} = \theta_t - \mathrm{lr}\, M\, \nabla L_{support}(\theta_t), \qquad
              M = M_{out} \otimes M_{in} \otimes M_{filter}

    Park and Oliva 2019 (arXiv:1902.03356). The matrices start as the identity: as MAML.

    Args:
        model: the model.
        lr: the inner learning rate.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(kronecker(), sgd(lr)), steps, **options)


def alfa(
    model: nn.Module, lr: float | Hyper = 0.1, decay: float | Hyper = 5e-4, steps: int = 5, **options: Any
) -> Learner:
    r"""Learn an initialisation and a network that sets the rate and weight decay of each tensor at each step of a task.

    .. math:: \theta_{t+1} = \beta_t \theta_t - \alpha_t \nabla L_{support}(\theta_t), \qquad
              (\alpha_t, \beta_t) = \mathrm{network}(\overline{\theta_t}, \overline{\nabla L})

    Baik, Choi, Choi, Kim, Lee 2020 (arXiv:2011.00209); see :func:`rbml.strategy.alfa` for what differs.

    Args:
        model: the model.
        lr: the start of the rates, which are learned per tensor and step.
        decay: the start of the decays, likewise.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.
    """
    rate, pull = (
        value if isinstance(value, Hyper) else Hyper(value, per="tensor", per_step=True) for value in (lr, decay)
    )
    return assemble(model, alfa_rule(rate, pull), steps, **options)


def l2f(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 6, **options: Any) -> Learner:
    r"""Learn an initialisation, and a network that attenuates it for each task before the first gradient step.

    .. math:: \theta_1 = \gamma \theta_0, \quad \gamma = \mathrm{network}(\overline{\nabla L(\theta_0)}), \qquad
              \theta_{t+1} = \theta_t - \mathrm{lr}\, \nabla L_{support}(\theta_t) \quad (t \geq 1)

    Baik, Hong, Lee 2020 (arXiv:1906.05859); see :func:`rbml.strategy.attenuate` for what differs.

    Args:
        model: the model.
        lr: the inner learning rate.
        steps: the attenuation and T - 1 gradient steps: 6 for the paper's 5.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(sgd(lr), attenuate()), steps, **options)


def metal(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 5, **options: Any) -> Learner:
    r"""Learn an initialisation and a loss that adapts to the state of each task, besides the support loss.

    .. math:: \theta_{t+1} = \theta_t - \mathrm{lr}\, \nabla (L_{support} + \mathcal{L}_{\phi})(\theta_t)

    Baik, Choi, Kim, Cho, Min, Lee 2021 (arXiv:2110.03909); see :func:`rbml.strategy.metal` for what differs: the
    unlabelled query half is left out.

    Args:
        model: the model.
        lr: the inner learning rate.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, chain(metal_term(), sgd(lr)), steps, **options)
