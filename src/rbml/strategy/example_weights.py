r"""Terms that weight the support examples, by one learned number per example or by a learned function of its loss.

Both replace the support loss by a weighted mean of the losses of the examples, usually divided by the sum of the
weights. With equal weights it is then the plain mean, whatever their common value. A loss that sums over examples also
becomes a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError, unknown
from rbml.strategy.base import Term, Values, part
from rbml.strategy.networks import check_hidden, check_widths, first, forward, perceptron
from rbml.strategy.views import TermInputs
from rbml.strategy.weights import Weights
from rbml.tree import Tree


@part
def example_weights(
    count: int, mean_over: Literal["weights", "examples"] = "weights", name: str = "example_weights"
) -> Term:
    r"""Weight every support example by a learned number of its own, between 0 and 1.

    .. math:: \frac{\sum_i w_i \ell_i}{\sum_i w_i}, \qquad w_i = \mathrm{sigmoid}(\mathrm{raw}_i)

    For tasks that share one support set with some bad examples or wrong labels: data hyper-cleaning (Franceschi et al.
    2017, arXiv:1703.01785). It differs from that paper in two ways: a sigmoid replaces the projection (as in Ji et al.
    2021, arXiv:2010.07962), and dividing by the sum of the weights replaces a bound on that sum. Learning to reweight
    (Ren et al. 2018, arXiv:1803.09050) uses the same hypergradient, of a single inner step, but computes new weights
    for every batch and clips them at zero; here the weights are meta-parameters and persist. All weights start at one
    half.

    Args:
        count: the number of examples in a support set; example i of every task has weight i. Where a step sees a part
            of the examples (a mini-batch of a :class:`rbml.Job`), their number in all: each has its weight wherever
            it comes.
        mean_over: what the sum is divided by: ``"weights"``, their sum, as above, or ``"examples"``, their number. With
            the latter the weight of one example does not depend on the others, and small weights are small steps.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if ``count`` is below 1, for another ``mean_over``, or, in use, if a support set has a different
            number of examples.
    """  # noqa: DOC501  `unknown` returns the UsageError
    check_widths("count", count)
    if mean_over not in ("weights", "examples"):
        raise unknown("mean_over", mean_over, ("weights", "examples"))

    def mean(raw: Tensor, inputs: TermInputs) -> Tensor:
        weights = torch.sigmoid(raw)
        return _weighted_mean(weights, inputs) if mean_over == "weights" else inputs.mean(weights * inputs.losses())

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        return {"raw": first(theta).new_zeros(count)}

    def value(values: Values, inputs: TermInputs) -> Tensor:
        index = inputs.mask.get("index")
        if index is not None:
            return mean(values["weights"]["raw"].index_select(0, index), inputs)
        if len(inputs.y) != count:
            raise UsageError(
                f"{name} has weights for {count} examples, but the support set has {len(inputs.y)}: "
                f"set count={len(inputs.y)}"
            )
        return mean(values["weights"]["raw"], inputs)

    return Term(name, {"weights": Weights(start)}, value, alone=True, anchored=False)


@part
def weight_net(hidden: Sequence[int] = (100,), name: str = "weight_net") -> Term:
    r"""Weight every support example by a learned function of its loss.

    .. math:: \frac{\sum_i w_i \ell_i}{\sum_i w_i}, \qquad w_i = \mathrm{sigmoid}(\mathrm{MLP}(\ell_i))

    Source: Meta-Weight-Net (Shu et al. 2019, arXiv:1902.07379): one hidden layer of 100 units, with ReLU there and SiLU
    here (see :mod:`rbml.strategy.learned_loss`). One difference matters. In the paper the weights are constants in the
    inner gradient, so that the gradient of example i has the coefficient :math:`w_i`. Here the gradient passes through
    the weights, and the coefficient is :math:`w_i + w'(\ell_i)(\ell_i - \bar\ell)`, where :math:`\bar\ell` is the
    weighted mean above. With constant weights the step would not be the gradient of any objective, and the
    hypergradient engines rely on a symmetric Hessian. The last layer starts at zero, so that all examples start with
    equal weights.

    Args:
        hidden: widths of the hidden layers.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if a hidden width is below 1.
    """
    widths = (1, *check_hidden(hidden), 1)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        return perceptron(widths, first(theta), generator, last=0.0)

    def value(values: Values, inputs: TermInputs) -> Tensor:
        return _weighted_mean(torch.sigmoid(forward(values["net"], inputs.losses()[:, None], F.silu)[:, 0]), inputs)

    return Term(name, {"net": Weights(start)}, value, alone=True, anchored=False)


def _weighted_mean(weights: Tensor, inputs: TermInputs) -> Tensor:
    """Return the weighted mean of the losses of the examples, without padding."""
    counts, losses = inputs.mask.get("example"), inputs.losses()
    if counts is not None:
        weights, losses = torch.where(counts, weights, 0), torch.where(counts, losses, 0)
    return (weights * losses).sum() / weights.sum()
