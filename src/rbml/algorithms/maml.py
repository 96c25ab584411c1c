"""MAML and its nearest relatives: one choice each of strategy, of what is adapted, and of hypergradient."""

from __future__ import annotations

from typing import Any

from torch import nn

from rbml.algorithms.options import assemble
from rbml.hypergrad import ConjugateGradient, FirstOrder, Implicit, Reptile
from rbml.learner import Learner
from rbml.strategy import Hyper, chain, proximal, sgd


def maml(model: nn.Module, lr: float | Hyper = 0.4, steps: int = 1, **options: Any) -> Learner:
    r"""Learn an initialisation from which a few steps of gradient descent suffice.

    .. math:: \min_{\theta_0} \; \mathbb{E}_{task}\; L_{query}(\theta_T), \qquad
              \theta_{t+1} = \theta_t - \mathrm{lr}\, \nabla L_{support}(\theta_t)

    Finn, Abbeel, Levine 2017 (arXiv:1703.03400), with exact second derivatives. On Omniglot the paper uses
    ``lr=0.4, steps=1`` for 5 ways and ``lr=0.1, steps=5`` for 20 ways.

    Args:
        model: the model.
        lr: the inner learning rate.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, sgd(lr), steps, **options)


def fomaml(model: nn.Module, lr: float | Hyper = 0.4, steps: int = 1, **options: Any) -> Learner:
    """Learn an initialisation as MAML does, without second derivatives.

    Finn, Abbeel, Levine 2017 (arXiv:1703.03400, section 5.2): MAML with ``FirstOrder()``. Arguments as :func:`maml`.
    """
    return assemble(model, sgd(lr), steps, **({"hypergradient": FirstOrder()} | options))


def reptile(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 10, **options: Any) -> Learner:
    r"""Learn an initialisation by moving it towards the result of each task.

    .. math:: \theta_0 \leftarrow \theta_0 + \epsilon\, (\theta_T - \theta_0)

    Nichol, Achiam, Schulman 2018 (arXiv:1803.02999): MAML with ``Reptile()``. The outer optimizer sees
    :math:`\theta_0 - \theta_T` as the gradient. Differs: every inner step takes the whole support set, where the paper
    draws minibatches from more shots than the task has. Arguments as :func:`maml`.
    """
    return assemble(model, sgd(lr), steps, **({"hypergradient": Reptile()} | options))


def imaml(
    model: nn.Module,
    lr: float | Hyper = 0.1,
    steps: int = 16,
    strength: float | Hyper = 2.0,
    solver_steps: int = 5,
    **options: Any,
) -> Learner:
    r"""Learn an initialisation to which each task is pulled back, by the implicit derivative at the end of learning.

    .. math:: \theta_T \approx \arg\min_\theta L_{support}(\theta) + \tfrac{\lambda}{2} \|\theta - \theta_0\|^2, \qquad
              \frac{dL_{query}}{d\theta_0} = (I + \tfrac{1}{\lambda} \nabla^2 L_{support})^{-1} \nabla L_{query}

    Rajeswaran, Finn, Kakade, Levine 2019 (arXiv:1909.04630): 16 steps of gradient descent, 5 of conjugate gradient,
    lambda 2. Memory does not grow with the steps. All parameters must be adapted, and the learning rate cannot be
    learned: at the end of learning it does not matter.

    Args:
        model: the model.
        lr: the inner learning rate.
        steps: T, inner steps.
        strength: lambda; it can be learned.
        solver_steps: of conjugate gradient.
        **options: any other of :class:`rbml.Learner`.
    """
    engine = Implicit(ConjugateGradient(solver_steps))
    return assemble(model, chain(proximal(strength), sgd(lr)), steps, **({"hypergradient": engine} | options))


def anil(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 5, **options: Any) -> Learner:
    """Learn features that all tasks share, and adapt only the head.

    Raghu, Raghu, Bengio, Vinyals 2020 (arXiv:1909.09157): MAML with ``adapt="head"``. Arguments as :func:`maml`.
    """
    return assemble(model, sgd(lr), steps, **({"adapt": "head"} | options))


def boil(model: nn.Module, lr: float | Hyper = 0.4, steps: int = 1, **options: Any) -> Learner:
    """Adapt only the body: the head is learned across tasks and is the same for each.

    Oh, Yoo, Kim, Yun 2021 (arXiv:2008.08882): MAML with ``adapt="body"``. Arguments as :func:`maml`. The head's rows
    must differ at the start, or the body has no gradient: PyTorch's random initialisation is enough.
    """
    return assemble(model, sgd(lr), steps, **({"adapt": "body"} | options))


def cavia(model: nn.Module, lr: float | Hyper = 1.0, steps: int = 1, **options: Any) -> Learner:
    r"""Adapt a few context parameters, an extra input of the model, for each task from zero.

    .. math:: \phi_{t+1} = \phi_t - \mathrm{lr}\, \nabla_\phi L_{support}(\phi_t, \theta), \qquad \phi_0 = 0

    Zintgraf et al. 2019 (arXiv:1810.03642). All other parameters are learned across tasks. On sinusoids the paper takes
    4 or 5 context parameters, ``lr=1`` and one step.

    Args:
        model: a model with a parameter named ``context`` that is zero: ``MLP(..., context=4)``, ``Conv4(...,
            context=100)``, or your own.
        lr: the inner learning rate.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.

    Raises:
        UsageError: if the model has no context parameters.
    """
    return assemble(model, sgd(lr), steps, **({"adapt": "context|*.context", "reset": "*context"} | options))
