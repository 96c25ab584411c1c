"""A model whose features are gated by a second network that sees the same inputs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rbml.errors import UsageError


class Modulated(nn.Module):
    r"""A body, a head, and a network that decides which features pass.

    .. math:: \mathrm{head}\big(\mathrm{body}(x) \circ \mathrm{sigmoid}(\mathrm{modulation}(x))\big)

    ANML (Beaulieu et al. 2020, arXiv:2002.09571): the gate decides what is predicted, and with it what is learned,
    because the gradient of a feature that does not pass is zero. Attributes: ``body``, ``modulation``, ``head``.

    Args:
        body: from inputs to features ``(n, d)``.
        modulation: from inputs to ``(n, d)``, before the sigmoid.
        head: from features to predictions.
    """

    def __init__(self, body: nn.Module, modulation: nn.Module, head: nn.Linear) -> None:
        """Put the three parts together."""
        super().__init__()
        self.body, self.modulation, self.head = body, modulation, head

    def forward(self, x: Any) -> Tensor:
        """Map ``(n, ...)`` to ``(n, outputs)``."""
        prediction: Tensor = self.head(self.body(x) * torch.sigmoid(self.modulation(x)))
        return prediction


def modulated(model: nn.Module, head: str) -> Modulated:
    """Return a modulated copy of a model: its body, its head, and a second, newly drawn body that modulates the first.

    Args:
        model: a model whose last layer is linear.
        head: the name of that layer.

    Raises:
        UsageError: if that layer is not an ``nn.Linear`` inside the model.
    """
    last = model.get_submodule(head) if head else None
    if not isinstance(last, nn.Linear) or last is model:
        raise UsageError(f"a modulated model needs an nn.Linear as its last layer; {head or 'the head'} is none")
    body, modulation = copy.deepcopy(model), copy.deepcopy(model)
    above, _, own = head.rpartition(".")
    setattr(body.get_submodule(above), own, nn.Identity())
    setattr(modulation.get_submodule(above), own, nn.Linear(last.in_features, last.in_features).to(last.weight))
    for layer in modulation.modules():
        if callable(reset := getattr(layer, "reset_parameters", None)):
            reset()
    return Modulated(body, modulation, copy.deepcopy(last))
