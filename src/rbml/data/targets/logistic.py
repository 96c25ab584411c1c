"""Logistic regression on the inputs as they are: the baseline that few-shot learners are most often beaten by.

Shapes: n examples, m queries, d numbers per example, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

STRENGTH = 0.001
"""How strongly weights are pulled to zero, for inputs whose mean squared distance to their mean is one."""

_ITERATIONS = 120


def logistic_regression(
    x: Tensor, members: Tensor, queries: Tensor, strength: float = STRENGTH, iterations: int = _ITERATIONS
) -> Tensor:
    r"""Return the logits of a multinomial logistic regression with a ridge, ``(m, C)``.

    .. math:: \min_{W, b} \sum_i -\log p(y_i \mid x_i) + \frac{\mathrm{strength}\, n}{2} \|W\|^2

    for inputs that were centred and divided by one number, the root of their mean squared norm: the result does not
    depend on the units of the inputs. scikit-learn's ``LogisticRegression(C=1 / (strength * n))`` on such inputs
    finds the same.

    The problem is solved in the space that the n examples span, in which it is of size n however many numbers an
    example has. Each step minimises the quadratic upper bound of Böhning (1992), whose matrix is diagonal there, with
    the momentum of Nesterov (1983), which is restarted where it points uphill (O'Donoghue and Candès 2015,
    arXiv:1204.3982).

    Args:
        x: examples ``(n, d)``, those that do not count zero.
        members: whether each example is of each class, ``(n, C)``; rows without a class do not count.
        queries: ``(m, d)``.
        strength: of the ridge.
        iterations: how many steps are taken.

    Cost: ``n^2 d`` for the products, then ``iterations`` times ``n^2 C``.
    """
    y = members.double()
    counts = y.sum(1, keepdim=True)
    n = counts.sum()
    known, asked = x.double(), queries.double()
    centre = (known * counts).sum(0) / n
    known, asked = (known - centre) * counts, asked - centre
    scale = (known**2).sum() / n
    scale = torch.where(scale > 0, scale, 1).sqrt()
    known, asked = known / scale, asked / scale
    products = known @ known.T
    size, axes = torch.linalg.eigh(products)
    size = size.clamp(min=0)
    root = torch.where(size > 1e-12 * size.max(), size, 0).sqrt()
    inverse = torch.where(root > 0, 1 / root.clamp(min=torch.finfo(root.dtype).tiny), 0)
    z = axes * root  # (n, n): the examples in their own coordinates, with orthogonal columns
    pull = strength * n
    # The Hessian of the loss is at most half of z^T z, and the columns of z and the intercept are orthogonal.
    bound = torch.cat([0.5 * size + pull, 0.5 * n[None]])[:, None]
    design = torch.cat([z, counts], 1)
    present = members.any(0)
    never = torch.where(present, torch.zeros_like(n), torch.finfo(y.dtype).min / 4)
    weight = ahead = y.new_zeros(len(bound), y.shape[1])
    ridge = torch.cat([pull.expand(len(size)), n.new_zeros(1)])[:, None]
    pace = y.new_ones(())
    for _ in range(iterations):
        chances = torch.softmax(design @ ahead + never, 1)
        slope = design.T @ ((chances - y) * counts) + ridge * ahead
        stepped = ahead - slope / bound
        uphill = (slope * (stepped - weight)).sum() > 0
        later = torch.where(uphill, torch.ones_like(pace), (1 + (1 + 4 * pace**2).sqrt()) / 2)
        ahead = stepped + torch.where(uphill, torch.zeros_like(pace), (pace - 1) / later) * (stepped - weight)
        weight, pace = stepped, later
    logits: Tensor = asked @ (known.T @ (axes * inverse @ weight[:-1])) + weight[-1]
    return logits
