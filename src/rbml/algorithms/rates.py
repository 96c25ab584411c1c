"""Algorithms that learn how large a step is, and how much of training each step is worth."""

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
        lr: where the rates start: a range to draw from, or one value.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.
    """
    return assemble(model, sgd(Hyper(lr, per="element")), steps, **options)


@dataclass(frozen=True)
class Annealing:
    """MAML++'s two schedules: the loss of every step fades into the loss of the last, and first order into second.

    Antoniou, Edwards, Storkey 2019 (arXiv:1810.09502, sections 4.1 and 4.2).

    Attributes:
        steps: T, the inner steps of the learner.
        multi_step: up to which share of training the query loss is taken after every inner step. All steps count the
            same at first; all but the last fade, to no less than 3 % of that; then the last alone counts.
        first_order: up to which share of training second derivatives are left out.
        engine: the hypergradient after that.
    """

    steps: int
    multi_step: float
    first_order: float
    engine: Hypergradient

    def __call__(self, progress: float) -> Phase:
        """Return the engine and the step weights for this part of training, from 0 to 1."""
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
    r"""Learn as MAML does, steadily: with the loss of every step, rates a layer and a step, and norms a step.

    .. math:: \min \; \mathbb{E}_{task} \sum_t w_t\, L_{query}(\theta_t), \qquad
              \theta_{t+1} = \theta_t - \alpha_{t, layer}\, \nabla L_{support}(\theta_t)

    Antoniou, Edwards, Storkey 2019 (arXiv:1810.09502). Each part is a switch. The cosine of the outer learning rate is
    that of every ``rbml train``. Batch norm normalises by the statistics of the batch, as in the authors' code, whose
    running statistics a step are kept but not used; what is learned a step is its gain and shift. A training loop of
    your own passes ``phase=learner.phase(progress)`` to ``learner.backward``; ``rbml train`` does.

    Args:
        model: the model.
        lr: where the inner rates start.
        steps: T, inner steps.
        learned_rates: learn a rate a layer and a step; else ``lr`` is fixed.
        multi_step: up to which share of training the loss of every step counts; 0 switches it off (0.1 in the paper).
        first_order: up to which share of training second derivatives are left out (0.5 in the paper on mini-ImageNet;
            0 on Omniglot).
        stepwise_norm: gain and shift of the norms have a value for every step, and are not adapted.
        **options: any other of :class:`rbml.Learner`.
    """
    rate = Hyper(lr, per="layer", per_step=True, learn=learned_rates)
    annealing = Annealing(steps, multi_step, first_order, options.pop("hypergradient", None) or Adjoint())
    has_norms = stepwise_norm and bool(norm_parameters(model))
    own: dict[str, Any] = {"curriculum": Curriculum(annealing), "stepwise": "norms" if has_norms else ""}
    return assemble(model, sgd(rate), steps, **(own | options))


def warp_grad(model: nn.Module, lr: float | Hyper = 0.1, steps: int = 5, **options: Any) -> Learner:
    """Learn warp layers between the model's own, which bend the gradients of a task and stay as they are on it.

    Flennerhag et al. 2020 (WarpGrad, arXiv:1909.00025); Lee and Choi 2018 (T-nets, arXiv:1801.05558). Warps are linear
    and start as the identity. Differs: theta0 and the warps are learned by the derivative through all inner steps, as
    T-nets are; WarpGrad's own objective takes one step from points of the trajectory.

    Args:
        model: the model; a warp is put after each of its linear layers and convolutions but the head.
        lr: the inner learning rate.
        steps: T, inner steps.
        **options: any other of :class:`rbml.Learner`.

    Raises:
        UsageError: if the model has nothing to warp.
    """
    kept = head_layer_name(model, options.get("head"))
    return assemble(warped(model, kept), sgd(lr), steps, **({"adapt": "!*.warp.*"} | options))
