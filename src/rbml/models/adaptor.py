"""A small model on the features of a frozen backbone: it starts as those features, and learns to bend them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.errors import UsageError

STARTS = ("whitened", "centred", "plain")


class Adaptor(nn.Module):
    r"""Features plus a residual layer, on the unit sphere; then a linear ``head``.

    .. math:: u = \frac{f - c}{\|f - c\|}, \qquad h = s \frac{u + r(u)}{\|u + r(u)\|}, \qquad r(u) = 0
              \text{ at the start}

    With a head from the support set (ProtoNet, ridge regression) it begins as nearest mean or ridge regression on the
    frozen features, and training across tasks can only add to that. A run begins with even more (:meth:`begin`): c is
    the mean of the training features, and r whitens them within classes: directions in which examples of one class
    differ are shrunk, so that what tells classes apart comes out. Residual adapters: Houlsby et al. 2019
    (arXiv:1902.00751), and for few shots Li, Liu, Bilen 2022 (arXiv:2107.00358).

    Args:
        inputs: the number of features of the backbone.
        outputs: the number of classes, or of regression targets.
        hidden: units of the residual layer: r is two linear layers with GELU between them. 0: r is one linear layer.
        scale: where s starts; it is learned. With ProtoNet :math:`s^2` is the inverse temperature of its distances.
        centre: whether c, which starts at zero, is learned.
        start: what a run finds on its training examples before the first step: ``"whitened"``, ``"centred"`` (c
            alone; also where r has hidden units, or there are no classes), or ``"plain"``: nothing.
        shrink: of the whitening: how much of the covariance is replaced by its mean variance, 0 to 1.

    Raises:
        UsageError: for another start or shrinkage.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: int = 0,
        scale: float = 4.0,
        centre: bool = True,
        start: str = "whitened",
        shrink: float = 0.5,
    ) -> None:
        """Build the layers; the last one of the residual starts at zero."""
        super().__init__()
        if start not in STARTS:
            raise UsageError(f"start of adaptor is {', '.join(STARTS[:-1])} or {STARTS[-1]}, not {start!r}")
        if not 0 < shrink <= 1:
            raise UsageError(f"shrink of adaptor must be above 0 and at most 1, not {shrink}")
        self.start, self.shrink = start, shrink
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

    def begin(self, x: Tensor, y: Tensor) -> None:
        """Start from what training examples show, in place: their mean, and how they differ within classes.

        Args:
            x: features ``(n, inputs)``.
            y: their classes ``(n,)``, or real targets.
        """
        if self.start == "plain" or self.centre is None:
            return
        x = x.flatten(1)
        self.centre.data.copy_(x.mean(0))
        if self.start == "whitened" and isinstance(self.residual, nn.Linear) and not y.is_floating_point():
            whitening = whitening_of(x, y, self.shrink)
            self.residual.weight.data.copy_(whitening - torch.eye(len(whitening)))


def whitening_of(x: Tensor, y: Tensor, shrink: float) -> Tensor:
    r"""Return the matrix that makes features spread alike in all directions within classes, ``(d, d)``, symmetric.

    .. math:: M \propto \left((1 - a)\, \Sigma + a\, \frac{\mathrm{tr}\, \Sigma}{d} I\right)^{-1/2}, \qquad
              \Sigma = \frac{1}{n} \sum_i (x_i - \bar x_{y_i})(x_i - \bar x_{y_i})^\top

    with a mean of 1 on its diagonal; it is linear discriminant analysis as a change of features (Fisher 1936).
    Shrinking: Ledoit and Wolf 2004, with a given a. Cost: :math:`O(n d^2 + d^3)`.

    Args:
        x: features ``(n, d)``.
        y: classes ``(n,)``.
        shrink: a.
    """
    _, places = torch.unique(y, return_inverse=True)
    counts = torch.bincount(places).to(x.dtype)
    means = torch.zeros(len(counts), x.shape[1], dtype=x.dtype).index_add_(0, places, x) / counts[:, None]
    apart = x - means[places]
    variances, directions = torch.linalg.eigh(apart.T @ apart / len(x))
    middle = variances.clamp(min=0).mean().clamp(min=torch.finfo(x.dtype).tiny)
    spread = (1 - shrink) * variances.clamp(min=0) + shrink * middle
    whitening: Tensor = (directions * spread.rsqrt()) @ directions.T
    return whitening / whitening.diagonal().mean()
