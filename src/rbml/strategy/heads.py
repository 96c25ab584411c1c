"""Starts: heads that are made from the support set, for as many classes (or real values) as a task has.

A learner with a start needs no meta-trained head, and works for any number of ways. Examples that a mask leaves out do
not count.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Start, Values, part
from rbml.strategy.hyper import Scalar, as_scalar
from rbml.strategy.views import Features


@part
def prototype(scale: float | Scalar = 1.0, name: str = "prototype") -> Start:
    r"""Start the head so that a logit is the negative squared distance to the mean feature of a class.

    .. math:: w_k = 2\,\mathrm{scale}\,c_k, \qquad b_k = -\mathrm{scale}\,\|c_k\|^2, \qquad
              c_k = \frac{1}{n_k} \sum_{y_i = k} f_{\theta_0}(x_i)

    so that :math:`w_k \cdot f + b_k = -\mathrm{scale}\,\|f - c_k\|^2` up to what all classes share, which softmax does
    not see. With no inner step it is a prototypical network (Snell et al. 2017, arXiv:1703.05175), with some it is
    Proto-MAML (Triantafillou et al. 2020, arXiv:1903.03096). A class without examples has its prototype at zero.

    The head raises a ``UsageError`` for real targets, which have no classes.

    Args:
        scale: the inverse temperature.
        name: the prefix of its numbers in phi.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        if seen.y.is_floating_point():
            raise UsageError(
                f"{name} makes a head of class means, but the targets are real values ({seen.y.dtype}): use ridge, or "
                "bayesian_linear"
            )
        members = one_hot(seen)
        centres = members.T @ counted(seen.features, seen) / members.sum(0).clamp(min=1)[:, None]
        scale = values["scale"][""]
        return 2 * scale * centres, -scale * (centres**2).sum(1)

    return Start(name, {"scale": as_scalar(scale)}, head)


@part
def ridge(
    strength: float | Scalar = 1.0, scale: float | Scalar = 1.0, shift: float | Scalar = 0.0, name: str = "ridge"
) -> Start:
    r"""Start the head as the ridge regression from features to one-hot labels, or to real targets.

    .. math:: W = X^\top (X X^\top + \mathrm{strength}\, I)^{-1} Y, \qquad
              \mathrm{logits} = \mathrm{scale}\,(f W) + \mathrm{shift}

    Bertinetto et al. 2019 (R2-D2, arXiv:1805.08136). The system has the size of the support set, or of the features
    where these are fewer.

    For real targets X and Y are centred, so that the intercept is not shrunk: the stronger the ridge, the closer
    predictions are to the mean of the support targets, and the units of the targets do not matter to the strength.

    .. math:: \mathrm{prediction} = \bar y + \mathrm{scale}\,(f - \bar f) W + \mathrm{shift}

    The head raises a ``UsageError`` for another number of real targets than the model has outputs.

    Args:
        strength: lambda; learn it with ``Scalar(1.0, bounds=(0, None))``.
        scale: what the regression is multiplied by, so that softmax sees logits of a useful size.
        shift: what is added; the same for all classes, it matters to losses other than cross entropy.
        name: the prefix of its numbers in phi.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        x = counted(seen.features, seen)
        scale, shift = values["scale"][""], values["shift"][""].expand(seen.ways)
        if not seen.y.is_floating_point():
            return scale * _ridge(x, one_hot(seen), values["strength"][""]).T, shift
        y = real_targets(seen, name)
        weigh = counted(torch.ones_like(y[:, :1]), seen)
        centre_x, centre_y = x.sum(0) / weigh.sum(), y.sum(0) / weigh.sum()
        weight = scale * _ridge((x - centre_x) * weigh, (y - centre_y) * weigh, values["strength"][""]).T
        return weight, centre_y - weight @ centre_x + shift

    numbers = {"strength": strength, "scale": scale, "shift": shift}
    return Start(name, {key: as_scalar(value) for key, value in numbers.items()}, head)


@part
def zero(name: str = "zero") -> Start:
    r"""Start the head at zero: all classes are equally likely, whatever their number.

    .. math:: w_k = 0, \qquad b_k = 0

    For a body that was trained on other classes, whose own head is useless for those of the task. The body's first
    gradient is zero; the head's is not.

    Args:
        name: the prefix of its numbers in phi.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        return seen.features.new_zeros(seen.ways, seen.features.shape[1]), seen.features.new_zeros(seen.ways)

    return Start(name, {}, head)


def counted(leaf: Tensor, seen: Features) -> Tensor:
    """Return numbers ``(n, ...)`` with zeros in the rows that do not count, whatever they held."""
    return leaf if seen.mask is None else torch.where(seen.mask[:, None], leaf, 0)


def real_targets(seen: Features, name: str) -> Tensor:
    """Return the real targets as ``(n, ways)``, zero in the rows that do not count.

    Raises:
        UsageError: if they are of another shape.
    """
    y = seen.y if seen.y.dim() > 1 else seen.y[:, None]
    if y.shape[1:] != (seen.ways,):
        raise UsageError(f"{name} needs real targets (n, {seen.ways}), one per output, not {tuple(seen.y.shape)}")
    return counted(y, seen)


def _ridge(x: Tensor, y: Tensor, strength: Tensor) -> Tensor:
    """Return ``(d, k)`` for ``x`` ``(n, d)`` and ``y`` ``(n, k)``."""
    # Two forms of one matrix. The smaller system is the cheaper one, and the larger is singular as strength goes to 0.
    pull = strength * torch.eye(min(x.shape), dtype=x.dtype, device=x.device)
    if x.shape[0] <= x.shape[1]:
        of_examples: Tensor = torch.linalg.solve(x @ x.T + pull, y)
        return x.T @ of_examples
    of_features: Tensor = torch.linalg.solve(x.T @ x + pull, x.T @ y)
    return of_features


def one_hot(seen: Features) -> Tensor:
    """Return the labels as ``(n, ways)``, zero in the rows that do not count."""
    # F.one_hot looks at the values, which vmap does not allow.
    members = seen.y[:, None] == torch.arange(seen.ways, device=seen.y.device)
    return counted(members.to(seen.features.dtype), seen)
