"""A start whose head is a Bayesian linear regression with a learned prior: it says how sure it is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Start, Values, part
from rbml.strategy.heads import counted
from rbml.strategy.views import Features
from rbml.strategy.weights import Weights
from rbml.tree import Tree


@part
def bayesian_linear(
    noise: float = 0.2, precision: float = 0.04, offset: float = 0.0, name: str = "bayesian_linear"
) -> Start:
    r"""Start the head as the posterior of a Bayesian linear regression from features to real targets.

    .. math:: \Lambda_n = Z^\top Z + \Lambda_0, \qquad K_n = \Lambda_n^{-1} (Z^\top Y + \Lambda_0 K_0), \qquad
              y \mid f \sim N\big(K_n^\top z,\; \sigma^2 (1 + z^\top \Lambda_n^{-1} z)\big)

    with z the features f followed by a one, and Z those of the support set. Learned across tasks: the mean
    :math:`K_0` and the precision :math:`\Lambda_0 = L L^\top` of the prior (L lower triangular with a positive
    diagonal, so that it is positive definite whatever is learned), and the noise :math:`\sigma^2` of each target. With
    the negative log likelihood as the loss (``rbml.data.targets.REAL``'s, for a prediction with variances) intervals
    are learned to be as wide as they must.

    Source: ALPaCA (Harrison, Sharma, Pavone 2018, arXiv:1807.08912). Differs: features are followed by a one, and the
    targets' noises are independent of one another; theirs is known beforehand.

    The model's head must be a :class:`rbml.models.BayesianLinear` (:func:`rbml.algorithms.alpaca` puts it there). The
    head raises a ``UsageError`` for class labels, and for a head of another size. Cost: a Cholesky decomposition of the
    size of the features, h + 1, per task.

    Limits: a prior that is fitted to few tasks (some tens of patients) is too sure about the next one, most of all
    where it must extrapolate: measure on tasks of other groups how many targets the intervals hold. The remedy of
    ``benchmarks/regression.py`` is to train on a wider family of tasks, whose changes are multiplied by random factors.

    Args:
        noise: the standard deviation of the targets at the start, in their units.
        precision: of the prior of every weight at the start, in units of the noise: its standard deviation is
            ``noise / sqrt(precision)``.
        offset: where targets lie at the start: the prior mean of the intercept.
        name: the prefix of its numbers in phi.

    Raises:
        UsageError: if the noise or the precision is not above zero.
    """
    if noise <= 0 or precision <= 0:
        raise UsageError(f"noise and precision must be above zero, not {noise=} and {precision=}")

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        like = _rows(theta)
        d, h = _outputs(like), like.shape[1]
        mean = like.new_zeros(d, h + 1)
        mean[:, -1] = offset
        factor = like.new_zeros(h + 1, h + 1)
        factor.diagonal().fill_(0.5 * math.log(precision))
        return {"mean": mean, "factor": factor, "noise": like.new_full((d,), 2 * math.log(noise))}

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        prior = values["prior"]
        y = _targets(seen, len(prior["noise"]), name)
        ones = torch.ones_like(seen.features[:, :1])
        z = counted(torch.cat([seen.features, ones], 1), seen)
        lower = prior["factor"].tril(-1) + torch.diag(prior["factor"].diagonal().exp())
        known = lower @ lower.T
        chol = torch.linalg.cholesky(z.T @ z + known)
        mean = torch.cholesky_solve(z.T @ y + known @ prior["mean"].T, chol).T
        identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        spread = torch.linalg.solve_triangular(chol, identity, upper=False)  # its rows r give z' (L L')^-1 z = |r z|^2
        level = torch.cat([torch.zeros_like(mean[:, :-1]), prior["noise"][:, None]], 1)
        rows = torch.cat([mean, level, spread])
        return rows[:, :-1], rows[:, -1]

    return Start(name, {"prior": Weights(start)}, head)


def _rows(theta: Tree) -> Tensor:
    """Return the weight of the Bayesian layer, or else of the last layer that is adapted."""
    layers = [leaf for key, leaf in theta.items() if key.endswith("rows.weight")]
    return (layers or [leaf for leaf in theta.values() if leaf.dim() == 2])[-1]


def _outputs(rows: Tensor) -> int:
    """Return for how many targets d a layer has its 2d + h + 1 rows."""
    return max(1, (rows.shape[0] - rows.shape[1] - 1) // 2)


def _targets(seen: Features, d: int, name: str) -> Tensor:
    """Return the targets as ``(n, d)``, or say what does not fit."""
    if not seen.y.is_floating_point():
        raise UsageError(f"{name} is for real values, but the targets are {seen.y.dtype}: use ridge, or prototype")
    y = seen.y if seen.y.dim() > 1 else seen.y[:, None]
    width = 2 * d + seen.features.shape[1] + 1
    if y.shape[1:] != (d,) or seen.ways != width:
        raise UsageError(
            f"{name} makes a head of {d} targets, rbml.models.BayesianLinear({seen.features.shape[1]}, {d}) with "
            f"{width} rows, but the head has {seen.ways} and the targets are {tuple(seen.y.shape)}"
        )
    return counted(y, seen)
