"""A small model on the features of a frozen backbone: it starts as those features, and learns to bend them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Adaptor(nn.Module):
    r"""Features plus a residual layer that starts at zero, on the unit sphere; then a linear ``head``.

    .. math:: u = \frac{f - c}{\|f - c\|}, \qquad h = s \frac{u + r(u)}{\|u + r(u)\|}, \qquad r(u) = 0
              \text{ at the start}

    With a head from the support set (ProtoNet, ridge regression) it begins as nearest mean or ridge regression on the
    frozen features, and training across tasks can only add to that. Residual adapters: Houlsby et al. 2019
    (arXiv:1902.00751), and for few shots Li, Liu, Bilen 2022 (arXiv:2107.00358).

    Args:
        inputs: the number of features of the backbone.
        outputs: the number of classes, or of regression targets.
        hidden: units of the residual layer: r is two linear layers with GELU between them. 0: r is one linear layer.
        scale: where s starts; it is learned. With ProtoNet :math:`s^2` is the inverse temperature of its distances.
        centre: whether c, which starts at zero, is learned.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = 0, scale: float = 4.0, centre: bool = True) -> None:
        """Build the layers; the last one of the residual starts at zero."""
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.centre = nn.Parameter(torch.zeros(inputs)) if centre else None
        last = nn.Linear(hidden or inputs, inputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), last) if hidden else last
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(n, inputs)`` to ``(n, outputs)``."""
        x = x.flatten(1)
        unit = F.normalize(x if self.centre is None else x - self.centre, dim=1)
        output: Tensor = self.head(self.scale * F.normalize(unit + self.residual(unit), dim=1))
        return output
