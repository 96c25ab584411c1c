"""MAML and its nearest relatives: one choice each of strategy, of what is adapted, and of hypergradient."""

from __future__ import annotations

from typing import Any

from torch import nn

from rbml.hypergrad import FirstOrder
from rbml.learner import Learner
from rbml.strategy import Hyper, sgd


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
    return Learner(model, sgd(lr), steps, **options)


def fomaml(model: nn.Module, lr: float | Hyper = 0.4, steps: int = 1, **options: Any) -> Learner:
    """Learn an initialisation as MAML does, without second derivatives.

    Finn, Abbeel, Levine 2017 (arXiv:1703.03400, section 5.2): MAML with ``FirstOrder()``. Arguments as :func:`maml`.
    """
    return Learner(model, sgd(lr), steps, **({"hypergradient": FirstOrder()} | options))


def meta_sgd(
    model: nn.Module, lr: tuple[float, float] | float = (0.005, 0.1), steps: int = 1, **options: Any
) -> Learner:
    r"""Learn an initialisation and, for every single weight, a learning rate of either sign.

    .. math:: \theta_{t+1} = \theta_t - \alpha \circ \nabla L_{support}(\theta_t), \qquad \min_{\theta_0, \alpha}

    Li, Zhou, Chen, Li 2017 (arXiv:1707.09835): one step, rates drawn uniformly from [0.005, 0.1].

    Args:
        model: the model.
        lr: where the rates start: a range to draw from, or one value.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.
    """
    return Learner(model, sgd(Hyper(lr, per="element")), steps, **options)


def anil(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 5, **options: Any) -> Learner:
    """Learn features that all tasks share, and adapt the head alone.

    Raghu, Raghu, Bengio, Vinyals 2020 (arXiv:1909.09157): MAML with ``adapt="head.*"``. Arguments as :func:`maml`.
    """
    return Learner(model, sgd(lr), steps, **({"adapt": "head.*"} | options))
