"""A schedule with a learned shape: factors at a few knots along the run, one curve per parameter tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Rule, Values, part
from rbml.strategy.schedules import progress
from rbml.strategy.views import StepInfo
from rbml.strategy.weights import Weights
from rbml.tree import Tree


@part
def knots(count: int = 5, shared: bool = False, learn: bool = True, name: str = "knots") -> Rule:
    r"""Scale the step by a factor that is learned at a few knots and interpolated between them.

    .. math:: d \leftarrow \exp\Bigl(\sum_k w_k(t)\, r_k\Bigr)\, d, \qquad
              w_k(t) = \max\left(0, 1 - \left|\tfrac{t}{T} (K - 1) - k\right|\right)

    with K knots r, spread evenly over the T steps, all zero at the start: the factor is then 1. It is always above
    zero, and a curve of a few numbers carries over to runs of another length, unlike one number per step (Maclaurin et
    al. 2015, arXiv:1502.03492, section 3.1). Cost: one multiplication per element.

    Args:
        count: K, the number of knots, at least 2.
        shared: whether all parameters share one curve; otherwise each tensor has its own.
        learn: whether the knots are learned.
        name: the name of the part in the strategy.

    Raises:
        UsageError: for fewer than two knots.
    """
    if count < 2:
        raise UsageError(f"{name} needs at least 2 knots, not {count}: for a constant factor use sgd(lr)")

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        like = next(iter(theta.values()))
        zeros = torch.zeros(count, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
        return {key: zeros.clone() for key in (["all"] if shared else theta)}

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        curves = values["curve"]
        like = next(iter(curves.values()))
        place = torch.as_tensor(progress(at) * (count - 1), dtype=like.dtype, device=like.device)
        near = (1 - (place - torch.arange(count, dtype=like.dtype, device=like.device)).abs()).clamp(min=0)

        def factor(key: str) -> Tensor:
            return (near * curves["all" if shared else key]).sum().exp()

        return {key: d * factor(key) for key, d in direction.items()}, state

    return Rule(name, {"curve": Weights(start, learn)}, update, direct=True)
