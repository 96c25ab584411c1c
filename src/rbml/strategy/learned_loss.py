"""Learned losses: terms that are a small network of predictions and targets, for any number of classes.

The network sees one output of one example at a time (the score of a class, or a real value) and is averaged over all of
them, so that the order of the classes does not matter. Its units are smooth, where the papers use ReLU, because the
hypergradient differentiates the gradient of this loss: with ReLU there would be no curvature, and jumps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Term, Values, part
from rbml.strategy.hyper import Scalar, as_scalar
from rbml.strategy.networks import at_step, check_hidden, check_widths, each_step, first, forward, means, perceptron
from rbml.strategy.views import TermInputs
from rbml.strategy.weights import Weights
from rbml.tree import Tree, prefixed, under

_ADAPTED = ("0/weight", "0/bias", "1/weight", "1/bias")


@part
def ml3(hidden: Sequence[int] = (50, 50), plain: float | Scalar = 0.0, name: str = "ml3") -> Term:
    r"""Replace the support loss by a learned network of prediction and target.

    .. math:: \frac{1}{nC} \sum_{i,c} \mathrm{softplus}(\mathrm{MLP}(p_{ic}, y_{ic})) + \mathrm{plain} \cdot L_{support}

    If the targets are classes, p is the softmax of the prediction and y is one-hot. If they are real values (C per
    example), both are used unchanged.

    Source: ML3 (Bechtle et al. 2021, arXiv:1906.05374): two hidden layers of 50 units, softplus at the end. In the
    paper the network sees all outputs of an example at once, which fixes the number of classes, and its units are ReLU
    (here SiLU). As in the paper it starts at random, so that inner learning is arbitrary at first; with ``plain=1.0``
    it starts close to the learner's own loss.

    Args:
        hidden: widths of the hidden layers.
        plain: the coefficient of the learner's own loss; 0 as in the paper, a :class:`Scalar` may be learned.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if a hidden width is below 1.
    """
    widths = (2, *check_hidden(hidden), 1)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        return perceptron(widths, first(theta), generator)

    def value(values: Values, inputs: TermInputs) -> Tensor:
        prediction, target = _prediction_and_target(inputs)
        seen = torch.softmax(prediction, -1) if _is_classification(inputs) else prediction
        each = F.softplus(forward(values["net"], torch.stack([seen, target], -1), F.silu))[..., 0]
        learned = inputs.mean(inputs.over_classes(each, -1, mean=True) if _is_classification(inputs) else each)
        return learned + values["plain"][""] * inputs.objective()

    return Term(name, {"net": Weights(start), "plain": as_scalar(plain)}, value, alone=True, anchored=False)


@part
def metal(hidden: int = 32, name: str = "metal") -> Term:
    r"""Add a learned loss, a network of task and prediction that a second network adapts to the task at every step.

    .. math:: \frac{1}{nC} \sum_{i,c} \mathrm{MLP}_{\phi'}(\mathrm{norm}(s, f_{ic}, y_{ic})), \qquad
              \phi'_j = (1 + a_j)\, \phi_j + b_j, \qquad (a, b) = \mathrm{MLP}_\psi(\mathrm{norm}(s))

    The state of the task, s, consists of the support loss and the mean of each of the N tensors of theta; f are the
    predictions and y the targets (one-hot for classes); norm subtracts the mean and divides by the standard deviation,
    over all numbers at once. Every inner step has its own pair of networks.

    Source: MeTAL (Baik et al. 2021, arXiv:2110.03909), only the part that learns from labels. The other part, a loss of
    the predictions for the *query* examples, is left out because an inner objective never sees them here. As in the
    authors' code the term is added to the support loss. In the paper the network sees all classes at once, which fixes
    their number, its units are ReLU (here SiLU), and its hidden layer is as wide as its input. The last layers of both
    networks start at zero, so that the term is zero at first.

    Args:
        hidden: width of the loss network's hidden layer.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if ``hidden`` is below 1.
    """
    check_widths("hidden", hidden)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        like, width = first(theta), len(theta) + 1

        def make() -> Tree:
            loss = perceptron((width + 2, hidden, 1), like, generator, last=0.0)
            adapter = perceptron((width, width, 2 * len(_ADAPTED)), like, generator, last=0.0)
            return prefixed(loss, "loss/") | prefixed(adapter, "adapter/")

        return each_step(steps, make)

    def value(values: Values, inputs: TermInputs) -> Tensor:
        if set(inputs.mask) - {"index"}:
            raise UsageError(
                f"{name} uses statistics of the whole support set and cannot leave out padding: use tasks of equal size"
            )
        nets = at_step(values["nets"], inputs.at.t)
        state = torch.stack([inputs.objective(), *means(inputs.theta)])
        factors, shifts = forward(under(nets, "adapter/"), _standardised(state), F.silu).chunk(2)
        loss = under(nets, "loss/")
        adapted = {key: (1 + factors[j]) * loss[key] + shifts[j] for j, key in enumerate(_ADAPTED)}
        prediction, target = _prediction_and_target(inputs)
        shared = state.expand(*prediction.shape, len(state))
        seen = torch.cat([shared, prediction[..., None], target[..., None]], -1)
        return inputs.mean(forward(adapted, _standardised(seen), F.silu))

    return Term(name, {"nets": Weights(start)}, value, anchored=False)


def _is_classification(inputs: TermInputs) -> bool:
    return not inputs.y.is_floating_point()


def _prediction_and_target(inputs: TermInputs) -> tuple[Tensor, Tensor]:
    """Return prediction and target with the same shape; classes, if there are any, along the last dimension."""
    if not _is_classification(inputs):
        return inputs.prediction, inputs.y.to(inputs.prediction.dtype).reshape(inputs.prediction.shape)
    prediction = inputs.prediction.movedim(1, -1)
    labels = torch.arange(prediction.shape[-1], device=inputs.y.device)  # F.one_hot reads values, which vmap forbids
    return prediction, (inputs.y[..., None] == labels).to(prediction.dtype)


def _standardised(numbers: Tensor) -> Tensor:
    """Return the numbers scaled to mean 0 and variance 1; numbers that are all equal become 0."""
    rest = numbers - numbers.mean()
    # reshape(1): forward AD turns the tangent of a 0-d float32 tensor behind `sqrt` into float64.
    variance = (rest**2).sum().reshape(1) / (rest.numel() - 1)
    return rest / torch.sqrt(variance + 1e-12)
