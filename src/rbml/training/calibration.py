r"""Probabilities that mean what they say: a temperature, and how well it does.

.. math:: p(y = k \mid x) = \mathrm{softmax}(\mathrm{logits} / T)_k

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017 (arXiv:1706.04599).
Dividing by one number never changes which class is the likeliest.

Shapes: m examples, C classes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15

_WIDE = 1.0
"""The standard deviation of log T that is assumed where nothing is known of the learner."""

NARROW = 0.3
"""The same where the temperature of other tasks of the same size is known."""

_FAR = 8.0  # log T is looked for between minus and plus this


def temperature(logits: Tensor, y: Tensor, usual: float = 1.0, spread: float = _WIDE) -> float:
    r"""Return the temperature that fits predictions of examples that the model has not seen.

    It maximises the likelihood with a prior, which decides where there are few examples:

    .. math:: \sum_i \log p(y_i \mid x_i; T) - \frac{(\log T - \log T_0)^2}{2 s^2}

    Args:
        logits: ``(m, C)``; with m = 0 the result is the usual temperature.
        y: the true classes ``(m,)``.
        usual: :math:`T_0`.
        spread: s.

    >>> round(temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), usual=2.0), 3)
    2.0
    """
    rows, centre = logits.double(), math.log(usual)

    def cost(log_t: float) -> float:
        fit = F.cross_entropy(rows / math.exp(log_t), y, reduction="sum").item() if len(y) else 0.0
        return fit + (log_t - centre) ** 2 / (2 * spread**2)

    low, high = centre - _FAR, centre + _FAR
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(60):  # golden section
        one, two = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, two) if cost(one) < cost(two) else (one, high)
    return math.exp((low + high) / 2)


def calibration_error(logits: Tensor, y: Tensor, bins: int = BINS) -> float:
    r"""Return the expected calibration error: how far probabilities are from how often they are right.

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{m} |\mathrm{accuracy}(B_b) - \mathrm{confidence}(B_b)|

    over bins of equal width of the probability of the likeliest class (Naeini et al. 2015; Guo et al. 2017).

    Args:
        logits: ``(m, C)``.
        y: the true classes ``(m,)``.
        bins: how many bins.

    >>> logits = torch.tensor([[0.75, 0.25]] * 4).log()
    >>> [round(calibration_error(logits, torch.tensor(y)), 6) for y in ([0, 0, 0, 1], [0, 0, 0, 0])]
    [0.0, 0.25]
    """
    confidence, found = torch.softmax(logits.double(), 1).max(1)
    right = (found == y).double()
    place = (confidence * bins).long().clamp(max=bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, right - confidence)
    return (gaps.abs().sum() / max(len(y), 1)).item()


def auroc(known: Tensor, unknown: Tensor) -> float:
    """Return the probability that a known example has a higher score than an unknown one; ties count one half.

    The area under the curve of true against false positives; 0.5 is chance, 1 is perfect.

    Args:
        known: scores ``(m,)``.
        unknown: scores ``(k,)``.

    >>> auroc(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0]))
    0.875
    """
    ordered = unknown.double().sort().values
    below = [torch.searchsorted(ordered, known.double(), right=right).double() for right in (False, True)]
    return ((below[0] + below[1]) / 2 / len(ordered)).mean().item()
