"""A head whose predictions are cosines: for streams, where neither the age of a row nor its length may count."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from rbml.errors import UsageError

_SHORTEST = 1e-6


class CosineHead(nn.Linear):
    r"""Features, centred and brought to one length, times rows that are shortened to less than length 1.

    .. math:: z_k = s\, \frac{w_k}{\sqrt{1 + \|w_k\|^2}} \cdot \frac{f - \bar f}{\|f - \bar f\|}

    with the mean over the features of one example. A row at zero becomes the direction of the first example of its
    class in one long step (the gradient of a row at zero lies along the example), and later steps turn it: the head
    begins as the imprinted weights of Qi, Brown, Lowe 2018 (arXiv:1712.07136), after the cosine heads of Gidaris and
    Komodakis 2018 (arXiv:1804.09458). Differs: rows are shortened smoothly, also at zero, where a cosine is not
    defined. Parameters: ``weight`` ``(C, d)`` and ``log_scale`` ``()``, which is not a row of any class: give learners
    ``head="head.weight"``.

    Args:
        inputs: d, the number of features.
        outputs: C, the number of classes.
        scale: s at the start, above zero; it is learned.
    """

    def __init__(self, inputs: int, outputs: int, scale: float = 16.0) -> None:
        """Begin with small rows, as a linear layer does."""
        super().__init__(inputs, outputs, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, inputs)`` to ``(n, outputs)``."""
        rows: Tensor = self.weight * (1 + self.weight.square().sum(1, keepdim=True)).rsqrt()
        return self.log_scale.exp() * of_one_length(x) @ rows.T


class OneLength(nn.Module):
    """What a :class:`CosineHead` does to features first, as a layer of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, d)`` to ``(n, d)``."""
        return of_one_length(x)


def of_one_length(features: Tensor) -> Tensor:
    """Return features ``(n, d)`` less the mean of each example's, brought to length 1."""
    features = features - features.mean(1, keepdim=True)
    # The length itself would have no derivative where all features of an example are equal.
    return features * (features.square().sum(1, keepdim=True) + _SHORTEST**2).rsqrt()


def with_cosine_head(model: nn.Module, head: str, scale: float = 16.0) -> nn.Module:
    """Return a copy of a model whose last layer is a :class:`CosineHead` for as many classes.

    Args:
        model: a model whose last layer is linear.
        head: the name of that layer.
        scale: as in :class:`CosineHead`.

    Raises:
        UsageError: if that layer is not an ``nn.Linear`` inside the model.
    """
    last = _last(model, head)
    return _replaced(model, head, CosineHead(last.in_features, last.out_features, scale).to(last.weight))


def with_linear_head(model: nn.Module, head: str) -> nn.Module:
    """Return a copy of a model whose features are brought to one length, and whose last layer, ``head``, is linear.

    Args:
        model: a model whose last layer is linear, or a :class:`CosineHead`.
        head: the name of that layer.

    Raises:
        UsageError: if that layer is not an ``nn.Linear`` inside the model.
    """
    last = _last(model, head)
    linear = nn.Linear(last.in_features, last.out_features).to(last.weight)
    body = _replaced(model, head, nn.Identity())
    return nn.Sequential(OrderedDict(body=body, one_length=OneLength(), head=linear))


def _last(model: nn.Module, head: str) -> nn.Linear:
    last = model.get_submodule(head) if head else None
    if not isinstance(last, nn.Linear) or last is model:
        raise UsageError(f"a cosine head takes the place of an nn.Linear in a model; {head or 'the head'} is none")
    return last


def _replaced(model: nn.Module, head: str, by: nn.Module) -> nn.Module:
    made = copy.deepcopy(model)
    above, _, own = head.rpartition(".")
    setattr(made.get_submodule(above), own, by)
    return made
