"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from rbml.models.dropout import Dropout


class MLP(nn.Module):
    """Fully connected layers with one activation between them; the last layer is named ``head``.

    Inputs of any shape ``(n, ...)`` are flattened to ``(n, inputs)``; outputs are ``(n, outputs)``.

    Args:
        inputs: how many numbers an example has.
        outputs: the number of classes, or of regression targets.
        hidden: widths of the hidden layers; ``(40, 40)`` on sinusoids (Finn et al. 2017, arXiv:1703.03400).
        activation: the activation module between layers.
        context: how many context parameters (CAVIA, Zintgraf et al. 2019, arXiv:1810.03642) are appended to every
            input: a parameter ``context`` that starts at zero; 0 means none.
        dropout: the share of each hidden layer's features that is dropped while training across tasks
            (:class:`rbml.models.dropout.Dropout`).

    Raises:
        UsageError: for a dropout that is no share.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (40, 40),
        activation: Callable[[], nn.Module] = nn.ReLU,
        context: int = 0,
        dropout: float = 0.0,
    ) -> None:
        """Build the layers with PyTorch's own initialisation."""
        super().__init__()
        self.context = nn.Parameter(torch.zeros(context)) if context else None
        widths = [inputs + context, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation(), *([Dropout(dropout)] if dropout else [])]
        self.body = nn.Sequential(nn.Flatten(), *layers)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, ...)`` to ``(n, outputs)``."""
        if self.context is not None:
            x = torch.cat([x.flatten(1), self.context.expand(len(x), -1)], 1)
        output: Tensor = self.head(self.body(x))
        return output
