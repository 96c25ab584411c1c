"""A linear layer that predicts its own uncertainty; ``rbml.strategy.bayesian_linear`` makes it from a support set."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BayesianLinear(nn.Module):
    r"""Means and logarithms of variances of d targets, from features f of width h.

    .. math:: m = K f + k, \qquad \log v = \log \sigma^2 + \log(1 + \|R f + r\|^2)

    with the mean K, k of a normal distribution over linear layers, the noise :math:`\sigma^2` of the targets, and a
    factor R, r of the distribution's covariance (in units of the noise): the variance grows far from the support set.
    All of these are rows of one ordinary linear layer ``rows``: d rows for the mean, d for the noise (whose weights are
    zero) and h + 1 for the factor, so that a start can make it like any other head.

    Args:
        inputs: h, the width of the features.
        outputs: d, how many targets.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Start the rows at random like any linear layer; the start of a strategy replaces them for each task."""
        super().__init__()
        self.outputs = outputs
        self.rows = nn.Linear(inputs, 2 * outputs + inputs + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, h)`` to ``(n, 2d)``: means, and logarithms of variances."""
        mean, noise, spread = self.rows(x).split([self.outputs, self.outputs, self.rows.in_features + 1], -1)
        return torch.cat([mean, noise + torch.log1p((spread**2).sum(-1, keepdim=True))], -1)
