"""A start whose head is a ridge regression that finds its strength on the support set, from a learned prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rbml.strategy.base import Start, Values, part
from rbml.strategy.heads import counted, one_hot, real_targets
from rbml.strategy.hyper import Scalar, as_scalar
from rbml.strategy.views import Features

_OFFSETS = tuple(place / 2 for place in range(-4, 5))
"""In decades: how far each strength that is tried lies from the one that is learned."""


@part
def ridge_cv(
    strength: float | Scalar = Scalar(0.1, bounds=(0, None)),  # noqa: B008  frozen
    spread: float | Scalar = 1.0,
    scale: float | Scalar = Scalar(10.0),  # noqa: B008
    name: str = "ridge_cv",
) -> Start:
    r"""Start the head as a ridge regression whose strength the support set chooses, by leaving out each example.

    With X the centred features of the support set, Y the centred one-hot labels (or real targets), :math:`\tau` the
    mean of :math:`\|x_i\|^2`, and nine strengths :math:`\lambda_j = \mathrm{strength} \cdot 10^{g_j}`,
    :math:`g_j = -2, -1.5, \dots, 2`:

    .. math:: W_j = X^\top (X X^\top + \lambda_j \tau I)^{-1} Y, \qquad
              e_j = \frac{1}{n} \sum_i \left\| \frac{y_i - \hat y_i}{1 - h_i} \right\|^2, \qquad
              w_j \propto e_j^{-n/2} \exp\left(-\frac{g_j^2}{2\,\mathrm{spread}^2}\right), \qquad
              \mathrm{logits} = \mathrm{scale} \left( (f - \bar x) \sum_j w_j W_j + \bar y \right)

    :math:`(y_i - \hat y_i)/(1 - h_i)` with the leverage :math:`h_i` is exactly the error on example i of the regression
    without it, intercept included (PRESS, Allen 1974), at no further cost. :math:`e_j^{-n/2}` is the likelihood of
    these errors for the best noise, so that many examples decide by themselves, and few lean on what was learned across
    tasks: where the strength usually lies, and how far from there (``spread``). Everything is smooth, so that the
    hypergradient goes through the choice. As strengths are multiples of :math:`\tau`, the units of features do not
    matter.

    The only example of a class says nothing about how well that class is recognised when it is left out: it does not
    count in e. With one example per class, the learned strength alone decides.

    Sources: ridge regression as a head: Bertinetto et al. 2019 (R2-D2, arXiv:1805.08136), where one strength is learned
    for all tasks. Weighing models by their errors on left-out examples: Yao et al. 2018 (arXiv:1704.02030), pseudo-BMA.
    Cost: nine linear systems of the number of examples, or of features, whichever is smaller.

    The head raises a ``UsageError`` for another number of real targets than the model has outputs.

    Args:
        strength: the middle of the strengths that are tried, as a part of the mean squared norm of the features.
        spread: how many decades from there a good strength usually lies.
        scale: what the regression to labels is multiplied by, so that softmax sees logits of a useful size; real
            targets are not scaled.
        name: the prefix of its numbers in phi.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        real = seen.y.is_floating_point()
        own = {key: values[key][""] for key in ("strength", "spread", "scale")}
        given = _centred(seen, real_targets(seen, name) if real else one_hot(seen))
        offsets = torch.tensor(_OFFSETS, dtype=given.x.dtype, device=given.x.device)
        tried = _solved(given, own["strength"] * 10**offsets)
        evidence = _evidence(tried.left_out, given.counts if real else _with_others(seen) * given.counts, real)
        weigh = (evidence - offsets**2 / (2 * own["spread"] ** 2)).softmax(0)
        weight = (weigh[:, None, None] * tried.weights).sum(0).T  # (C, d)
        bias = given.middle_y - weight @ given.middle_x
        return (weight, bias) if real else (own["scale"] * weight, own["scale"] * bias)

    numbers = {"strength": strength, "spread": spread, "scale": scale}
    return Start(name, {key: as_scalar(value) for key, value in numbers.items()}, head)


class _Centred(NamedTuple):
    """Features ``(n, d)`` and targets ``(n, C)`` without their means, and with zeros where a row does not count."""

    x: Tensor
    y: Tensor
    middle_x: Tensor
    middle_y: Tensor
    counts: Tensor


class _Tried(NamedTuple):
    """For each strength: the weights ``(J, d, C)``, and the errors on left-out examples ``(J, n, C)``."""

    weights: Tensor
    left_out: Tensor


def _centred(seen: Features, y: Tensor) -> _Centred:
    x = counted(seen.features, seen)
    counts = counted(torch.ones_like(x[:, :1]), seen)
    middle_x, middle_y = x.sum(0) / counts.sum(), y.sum(0) / counts.sum()
    return _Centred((x - middle_x) * counts, (y - middle_y) * counts, middle_x, middle_y, counts[:, 0])


def _solved(given: _Centred, strengths: Tensor) -> _Tried:
    x, y, counts = given.x, given.y, given.counts
    # The system is divided by the size of the features: it is well conditioned even where all features are the same.
    size = ((x**2).sum() / counts.sum()).clamp(min=1e-12)
    pull = strengths[:, None, None] * torch.eye(min(x.shape), dtype=x.dtype, device=x.device)
    if x.shape[0] <= x.shape[1]:
        # Of the inverse without the direction of the mean, so that 1 - h is not a difference of two large numbers.
        without_mean = torch.diag(counts) - torch.outer(counts, counts) / counts.sum()
        inverse = _solve(x @ x.T / size + pull, without_mean)
        of_examples = inverse @ y
        spare = torch.diagonal(inverse, dim1=1, dim2=2)
        return _Tried(x.T @ of_examples / size, of_examples / _positive(spare)[:, :, None])
    to_weights = _solve(x.T @ x / size + pull, x.T / size)
    weights = to_weights @ y
    spare = 1 - 1 / counts.sum() - (x.T * to_weights).sum(1)
    return _Tried(weights, (y - x @ weights) / _positive(spare)[:, :, None])


def _solve(systems: Tensor, right: Tensor) -> Tensor:
    """Return the solutions ``(J, m, k)`` of systems ``(J, m, m)`` with one right side ``(m, k)``."""
    # Where J is m, an m x k matrix would be taken for J vectors.
    solution: Tensor = torch.linalg.solve(systems, right.expand(len(systems), *right.shape))
    return solution


def _positive(spare: Tensor) -> Tensor:
    """Return what is left of each example when it is left out, above zero: one example alone leaves nothing."""
    return spare.clamp(min=torch.finfo(spare.dtype).eps)


def _evidence(left_out: Tensor, counts: Tensor, real: bool) -> Tensor:
    """Return the logarithm of the likelihood of the errors ``(J, n, C)`` for the best noise, ``(J,)``."""
    many = counts.sum()
    squares = (left_out**2 * counts[:, None]).sum(1) / many.clamp(min=1)
    # Labels have one noise; each real target has its own, so that their units do not matter.
    errors = squares if real else squares.sum(1, keepdim=True)
    return -many / 2 * (errors + math.sqrt(torch.finfo(errors.dtype).tiny)).log().sum(1)


def _with_others(seen: Features) -> Tensor:
    """Return 1 for the examples whose class has another one, ``(n,)``."""
    members = one_hot(seen)
    return ((members @ members.sum(0)) > 1).to(members.dtype)
