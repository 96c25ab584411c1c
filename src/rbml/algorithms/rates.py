"""Algorithms that learn the size of each step, or that weight the steps over the course of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from rbml.algorithms.options import assemble
from rbml.autodiff.layers import norm_parameters
from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient
from rbml.learner import Curriculum, Learner, Phase
from rbml.learner.initial import head_layer_name
from rbml.models import warped
from rbml.strategy import Hyper, sgd


def meta_sgd(
    model: nn.Module, lr: tuple[float, float] | float = (0.005, 0.1), steps: int = 1, **options: Any
) -> Learner:
    r"""Learn an initialisation and, for every single weight, a learning rate of either sign.

    .. math:: \theta_{t+1} = \theta_t - \alpha \circ \nabla L_{support}(\theta_t), \qquad \min_{\theta_0, \alpha}

    Li, Zhou, Chen, Li 2017 (arXiv:1707.09835): one step, rates drawn uniformly from [0.005, 0.1].

    Args:
        model: the model.
        lr: the start of the rates: a range to draw from, or one value.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, sgd(Hyper(lr, per="element")), steps, **options)


@dataclass(frozen=True)
class Annealing:
    """MAML++'s two schedules: from the loss of every step to that of the last, and from first order to second.

    Antoniou, Edwards, Storkey 2019 (arXiv:1810.09502, sections 4.1 and 4.2).

    Attributes:
        steps: T, the inner steps of the learner.
        multi_step: the share of training during which the query loss is taken after every inner step. At first all
            steps count the same; all but the last then fade, to at least 3 % of that; afterwards only the last counts.
        first_order: the share of training during which second derivatives are left out.
        engine: the hypergradient after that.
    """

    steps: int
    multi_step: float
    first_order: float
    engine: Hypergradient

    def __call__(self, progress: float) -> Phase:
        """Return the engine and the step weights at a point of training, from 0 to 1."""
        engine = FirstOrder() if progress < self.first_order else self.engine
        if progress >= self.multi_step or self.steps < 2:
            return Phase(engine)
        each = max(1 - progress / self.multi_step, 0.03) / self.steps
        return Phase(engine, [each] * (self.steps - 1) + [1 - each * (self.steps - 1)])


def maml_plus_plus(
    model: nn.Module,
    lr: float = 0.1,
    steps: int = 5,
    *,
    learned_rates: bool = True,
    multi_step: float = 0.1,
    first_order: float = 0.0,
    stepwise_norm: bool = True,
    **options: Any,
) -> Learner:
    r"""Train MAML more stably: with the loss of every step, rates per layer and step, and a norm per step.

    .. math:: \min \; \mathbb{E}_{task} \sum_t w_t\, L_{query}(\theta_t), \qquad
              \theta_{t+1} = \theta_t - \alpha_{t, layer}\, \nabla L_{support}(\theta_t)

    Antoniou, Edwards, Storkey 2019 (arXiv:1810.09502). Each part can be switched off. The cosine schedule of the outer
    learning rate is that of every ``rbml train``. Batch norm uses the statistics of the batch, as in the authors' code,
    which keeps running statistics per step but does not use them; its gain and shift are learned per step. Your own
    training loop must pass ``phase=learner.phase(progress)`` to ``learner.backward``, as ``rbml train`` does.

    Args:
        model: the model.
        lr: the start of the inner rates.
        steps: T, inner steps.
        learned_rates: learn one rate per layer and step; else ``lr`` is fixed.
        multi_step: the share of training during which the loss of every step counts; 0 switches this off (0.1 in the
            paper).
        first_order: the share of training during which second derivatives are left out (0.5 in the paper on
            mini-ImageNet; 0 on Omniglot).
        stepwise_norm: gain and shift of the norms have one value per step, and are not adapted.
        **options: any other of :class:`rbml.Learner`.
    """
    rate = Hyper(lr, per="layer", per_step=True, learn=learned_rates)
    annealing = Annealing(steps, multi_step, first_order, options.pop("hypergradient", None) or Adjoint())
    has_norms = stepwise_norm and bool(norm_parameters(model))
    own: dict[str, Any] = {"curriculum": Curriculum(annealing), "stepwise": "norms" if has_norms else ""}
    return assemble(model, sgd(rate), steps, **(own | options))


def warp_grad(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 5, **options: Any) -> Learner:
    """Learn warp layers between the model's own, which precondition the gradients of a task and are not adapted.

    Flennerhag et al. 2020 (WarpGrad, arXiv:1909.00025); Lee and Choi 2018 (T-nets, arXiv:1801.05558). Warps are linear
    and start as the identity. Differs: theta0 and the warps are learned by the derivative through all inner steps, as
    T-nets are; WarpGrad's own objective takes one step from points of the trajectory.

    Args:
        model: the model; a warp is inserted after each of its linear layers and convolutions, except the head.
        lr: the inner learning rate.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.

    Raises:
        UsageError: if the model has nothing to warp.
    """
    kept = head_layer_name(model, options.get("head"))
    return assemble(warped(model, kept), sgd(lr), steps, **({"adapt": "!*.warp.*"} | options))
