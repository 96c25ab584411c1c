r"""Terms that weigh the support examples: a learned number each, or a learned function of the example's loss.

Both take the place of the support loss, and divide by the sum of the weights: with equal weights they are its mean over
the examples, whatever the weights are (a loss that adds its examples up becomes their mean).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Term, TermInputs, Values, part
from rbml.strategy.networks import check_hidden, check_widths, first, forward, perceptron
from rbml.strategy.weights import Weights
from rbml.tree import Tree


@part
def example_weights(count: int, name: str = "example_weights") -> Term:
    r"""Weigh every place in the support set by a learned number between 0 and 1.

    .. math:: \frac{\sum_i w_i \ell_i}{\sum_i w_i}, \qquad w_i = \mathrm{sigmoid}(\mathrm{raw}_i)

    For tasks that share one support set, of which some examples or labels are bad: data hyper-cleaning (Franceschi et
    al. 2017, arXiv:1703.01785), with a sigmoid in place of a projection (as Ji et al. 2021, arXiv:2010.07962), and with
    a sum that is divided by in place of a bound on it. Learning to reweight (Ren et al. 2018, arXiv:1803.09050) takes
    one step along the same hypergradient, of one inner step, cuts it at zero and forgets it; here the weights are
    meta-parameters and stay. All start at one half.

    Args:
        count: how many examples a support set has; example i of every task has weight i.
        name: what it is filed under.

    Raises:
        UsageError: if ``count`` is below 1, or a support set has another number of examples.
    """
    check_widths("count", count)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        return {"raw": first(theta).new_zeros(count)}

    def value(values: Values, scene: TermInputs) -> Tensor:
        if len(scene.y) != count:
            raise UsageError(f"{name} has weights for {count} examples, but the support set has {len(scene.y)}")
        return _weighed(torch.sigmoid(values["weights"]["raw"]), scene)

    return Term(name, {"weights": Weights(start)}, value, alone=True, anchored=False)


@part
def weight_net(hidden: Sequence[int] = (100,), name: str = "weight_net") -> Term:
    r"""Weigh every support example by a learned function of its loss.

    .. math:: \frac{\sum_i w_i \ell_i}{\sum_i w_i}, \qquad w_i = \mathrm{sigmoid}(\mathrm{MLP}(\ell_i))

    Source: Meta-Weight-Net (Shu et al. 2019, arXiv:1902.07379): one hidden layer of 100 units, ReLU there and SiLU here
    (see :mod:`rbml.strategy.learned_loss`). One difference matters: there the weights count as constants in the inner
    gradient, so that example i counts :math:`w_i`; here the gradient goes through them, so that with :math:`\bar\ell`
    the value above it counts :math:`w_i + w'(\ell_i)(\ell_i - \bar\ell)`. With constants the step would follow no
    gradient of any objective, and the hypergradients here rest on second derivatives that commute. The last layer
    starts at zero: every example counts the same.

    Args:
        hidden: widths of the hidden layers.
        name: what it is filed under.

    Raises:
        UsageError: if a hidden width is below 1.
    """
    widths = (1, *check_hidden(hidden), 1)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        return perceptron(widths, first(theta), generator, last=0.0)

    def value(values: Values, scene: TermInputs) -> Tensor:
        return _weighed(torch.sigmoid(forward(values["net"], scene.losses()[:, None], F.silu)[:, 0]), scene)

    return Term(name, {"net": Weights(start)}, value, alone=True, anchored=False)


def _weighed(weights: Tensor, scene: TermInputs) -> Tensor:
    counts, losses = scene.mask.get("example"), scene.losses()
    if counts is not None:
        weights, losses = torch.where(counts, weights, 0), torch.where(counts, losses, 0)
    return (weights * losses).sum() / weights.sum()
