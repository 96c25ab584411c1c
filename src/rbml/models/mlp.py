"""A multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn


class MLP(nn.Module):
    """Fully connected layers with one activation between them; the last layer is named ``head``.

    Inputs of any shape ``(n, ...)`` are flattened to ``(n, inputs)``; outputs are ``(n, outputs)``.

    Args:
        inputs: numbers an example.
        outputs: ways, or regression targets.
        hidden: widths of the hidden layers; ``(40, 40)`` on sinusoids (Finn et al. 2017, arXiv:1703.03400).
        activation: the activation module between layers.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (40, 40),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        """Build the layers with PyTorch's own initialisation."""
        super().__init__()
        widths = [inputs, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), activation()]
        self.body = nn.Sequential(nn.Flatten(), *layers)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, ...)`` to ``(n, outputs)``."""
        output: Tensor = self.head(self.body(x))
        return output
