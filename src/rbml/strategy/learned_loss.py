"""Terms that are a learned loss: a small network of predictions and targets, whatever number of classes there is.

A network sees one output of one example at a time (a class, or a regression target) and is averaged over all of them,
so that renaming the classes changes nothing. It is smooth, where the papers have ReLU: a gradient of a loss is taken,
and of that the derivative, which ReLU would leave without curvature and with jumps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Term, TermInputs, Values, part
from rbml.strategy.hyper import Scalar, as_scalar
from rbml.strategy.networks import at_step, check_hidden, check_widths, each_step, first, forward, means, perceptron
from rbml.strategy.weights import Weights
from rbml.tree import Tree, prefixed, under

_ADAPTED = ("0/weight", "0/bias", "1/weight", "1/bias")


@part
def ml3(hidden: Sequence[int] = (50, 50), plain: float | Scalar = 0.0, name: str = "ml3") -> Term:
    r"""Learn from a loss that is itself a network of prediction and target, in place of the support loss.

    .. math:: \frac{1}{nC} \sum_{i,c} \mathrm{softplus}(\mathrm{MLP}(p_{ic}, y_{ic})) + \mathrm{plain} \cdot L_{support}

    p is the softmax of the prediction and y one-hot where the targets are classes; both are as they come where the
    targets are numbers (C of them an example).

    Source: ML3 (Bechtle et al. 2021, arXiv:1906.05374): two hidden layers of 50 units, softplus at the end. There the
    network sees all outputs of an example at once and so has a fixed number of classes; the units are ReLU (here SiLU).
    As in the paper it starts at random, and so does what is learned from it: with ``plain=1.0`` it starts near the
    learner's own loss.

    Args:
        hidden: widths of the hidden layers.
        plain: how much of the learner's own loss is added; 0 is the paper's, a :class:`Scalar` may be learned.
        name: what it is filed under.

    Raises:
        UsageError: if a hidden width is below 1.
    """
    widths = (2, *check_hidden(hidden), 1)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        return perceptron(widths, first(theta), generator)

    def value(values: Values, scene: TermInputs) -> Tensor:
        prediction, target = _outputs(scene)
        seen = torch.softmax(prediction, -1) if _classes(scene) else prediction
        learned = scene.mean(F.softplus(forward(values["net"], torch.stack([seen, target], -1), F.silu)))
        return learned + values["plain"][""] * scene.objective()

    return Term(name, {"net": Weights(start), "plain": as_scalar(plain)}, value, alone=True, anchored=False)


@part
def metal(hidden: int = 32, name: str = "metal") -> Term:
    r"""Add a loss that is a network of task and prediction, which a second network adapts to the task at every step.

    .. math:: \frac{1}{nC} \sum_{i,c} \mathrm{MLP}_{\phi'}(\mathrm{norm}(s, f_{ic}, y_{ic})), \qquad
              \phi'_j = (1 + a_j)\, \phi_j + b_j, \qquad (a, b) = \mathrm{MLP}_\psi(\mathrm{norm}(s))

    The state of the task, s, is the support loss and the mean of each of the N tensors of theta; f are the predictions,
    y the targets (one-hot where they are classes); norm takes the mean away and divides by the standard deviation, over
    all numbers at once. Each inner step has both networks of its own.

    Source: MeTAL (Baik et al. 2021, arXiv:2110.03909), its half that learns from labels: the other half, a loss of the
    predictions for the *query* examples, is left out, since an inner objective here never sees them. As in the authors'
    code it is added to the support loss. There the network sees all classes at once and so has a fixed number of them;
    the units are ReLU (here SiLU), and the hidden width is that of the input. Both networks start with a last layer of
    zero: the term starts at zero, and learning as without it.

    Args:
        hidden: width of the loss network's hidden layer.
        name: what it is filed under.

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

    def value(values: Values, scene: TermInputs) -> Tensor:
        if scene.mask:
            raise UsageError(
                f"{name} looks at a support set as a whole and cannot leave out padding: use tasks of equal size"
            )
        nets = at_step(values["nets"], scene.at.t)
        state = torch.stack([scene.objective(), *means(scene.theta)])
        factors, shifts = forward(under(nets, "adapter/"), _normal(state), F.silu).chunk(2)
        loss = under(nets, "loss/")
        adapted = {key: (1 + factors[j]) * loss[key] + shifts[j] for j, key in enumerate(_ADAPTED)}
        prediction, target = _outputs(scene)
        shared = state.expand(*prediction.shape, len(state))
        seen = torch.cat([shared, prediction[..., None], target[..., None]], -1)
        return scene.mean(forward(adapted, _normal(seen), F.silu))

    return Term(name, {"nets": Weights(start)}, value, anchored=False)


def _classes(scene: TermInputs) -> bool:
    return not scene.y.is_floating_point()


def _outputs(scene: TermInputs) -> tuple[Tensor, Tensor]:
    """Return prediction and target of one shape, with the classes last where there are classes."""
    if not _classes(scene):
        return scene.prediction, scene.y.to(scene.prediction.dtype).reshape(scene.prediction.shape)
    prediction = scene.prediction.movedim(1, -1)
    labels = torch.arange(prediction.shape[-1], device=scene.y.device)  # one_hot looks at the values: not under vmap
    return prediction, (scene.y[..., None] == labels).to(prediction.dtype)


def _normal(numbers: Tensor) -> Tensor:
    """Return the numbers with mean 0 and variance 1, as long as they are not all the same."""
    rest = numbers - numbers.mean()
    variance = (rest**2).sum().reshape(1) / (rest.numel() - 1)  # of no dimension, PyTorch would widen its tangent
    return rest / torch.sqrt(variance + 1e-12)
