"""Terms of the inner objective: what keeps theta small or near."""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.base import Scene, Term, Values, part
from rbml.strategy.hyper import Hyper, as_hyper


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

    def value(values: Values, scene: Scene) -> Tensor:
        strengths = values["strength"]
        return 0.5 * torch.stack([(strengths[key] * leaf**2).sum() for key, leaf in scene.theta.items()]).sum()

    return Term(name, {"strength": as_hyper(strength)}, value)
