"""Starts: heads that are made from the support set, for as many classes as a task has.

A learner with one needs no head that was meta-trained: whatever number of ways comes, the head is theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.base import Features, Start, Values, part
from rbml.strategy.hyper import Scalar, as_scalar


@part
def prototype(scale: float | Scalar = 1.0, name: str = "prototype") -> Start:
    r"""Start the head so that a logit is the negative squared distance to the mean feature of a class.

    .. math:: w_k = 2\,\mathrm{scale}\,c_k, \qquad b_k = -\mathrm{scale}\,\|c_k\|^2, \qquad
              c_k = \frac{1}{n_k} \sum_{y_i = k} f_{\theta_0}(x_i)

    so that :math:`w_k \cdot f + b_k = -\mathrm{scale}\,\|f - c_k\|^2` up to what all classes share, which softmax does
    not see. With no inner step it is a prototypical network (Snell et al. 2017, arXiv:1703.05175), with some it is
    Proto-MAML (Triantafillou et al. 2020, arXiv:1903.03096). A class without examples has its prototype at zero.

    Args:
        scale: the inverse temperature.
        name: what it is filed under.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        members = _one_hot(seen)
        centres = members.T @ seen.features / members.sum(0).clamp(min=1)[:, None]
        scale = values["scale"][""]
        return 2 * scale * centres, -scale * (centres**2).sum(1)

    return Start(name, {"scale": as_scalar(scale)}, head)


@part
def ridge(
    strength: float | Scalar = 1.0, scale: float | Scalar = 1.0, shift: float | Scalar = 0.0, name: str = "ridge"
) -> Start:
    r"""Start the head as the ridge regression from features to one-hot labels.

    .. math:: W = X^\top (X X^\top + \mathrm{strength}\, I)^{-1} Y, \qquad
              \mathrm{logits} = \mathrm{scale}\,(f W) + \mathrm{shift}

    Bertinetto et al. 2019 (R2-D2, arXiv:1805.08136). The system has the size of the support set, not of the features.

    Args:
        strength: lambda; learn it with ``Scalar(1.0, bounds=(0, None))``.
        scale: what the regression is multiplied by, so that softmax sees logits of a useful size.
        shift: what is added; the same for all classes, it matters to losses other than cross entropy.
        name: what it is filed under.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        x = seen.features
        pull = values["strength"][""] * torch.eye(len(x), dtype=x.dtype, device=x.device)
        weight = x.T @ torch.linalg.solve(x @ x.T + pull, _one_hot(seen))
        return values["scale"][""] * weight.T, values["shift"][""].expand(seen.ways)

    numbers = {"strength": strength, "scale": scale, "shift": shift}
    return Start(name, {key: as_scalar(value) for key, value in numbers.items()}, head)


@part
def zero(name: str = "zero") -> Start:
    r"""Start the head at zero: every class is as likely, whatever number of them there is.

    .. math:: w_k = 0, \qquad b_k = 0

    For a body that was trained on something else, whose own head means nothing to the task's classes. The body's first
    gradient is zero; the head's is not.

    Args:
        name: what it is filed under.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        return seen.features.new_zeros(seen.ways, seen.features.shape[1]), seen.features.new_zeros(seen.ways)

    return Start(name, {}, head)


def _one_hot(seen: Features) -> Tensor:
    # F.one_hot looks at the values, which vmap does not allow.
    return (seen.y[:, None] == torch.arange(seen.ways, device=seen.y.device)).to(seen.features.dtype)
