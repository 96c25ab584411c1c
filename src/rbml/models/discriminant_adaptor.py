"""An adaptor beside Fisher's discriminant: two views of the features of a frozen backbone, which err differently."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.errors import UsageError


class DiscriminantAdaptor(nn.Module):
    r"""Features bent by a residual layer beside features in which training classes lie apart; then a ``head``.

    .. math:: u = \frac{f - c}{\|f - c\|}, \qquad h = \frac{s}{\sqrt 2} \left[ \frac{u + r(u)}{\|u + r(u)\|},\;
              \frac{D u}{\|D u\|} \right], \qquad r(u) = 0 \text{ at the start}

    D stays what a run finds on its training examples before the first step (:meth:`begin`, which also sets c to their
    mean); r is learned across tasks. As in :class:`rbml.models.Adaptor`, a head from the support set begins as nearest
    mean or ridge regression. D is Fisher's linear discriminant with its strongest directions stretched less than it
    says (:func:`discriminant_of`). Residual adapters: Houlsby et al. 2019 (arXiv:1902.00751); Fisher 1936.

    Args:
        inputs: the number of features of the backbone.
        outputs: the number of classes.
        scale: where s starts; it is learned.
        shrink: how much of the covariance within classes is replaced by its mean variance, 0 to 1.
        power: by which directions are stretched in which the means of classes differ; 0: all alike.

    Raises:
        UsageError: for another shrinkage or power.
    """

    discriminant: Tensor

    def __init__(
        self, inputs: int, outputs: int, scale: float = 4.0, shrink: float = 0.75, power: float = 0.15
    ) -> None:
        """Build the layers; the residual starts at zero, the discriminant as the identity."""
        super().__init__()
        if not 0 < shrink <= 1:
            raise UsageError(f"shrink of discriminant_adaptor must be above 0 and at most 1, not {shrink}")
        if power < 0:
            raise UsageError(f"power of discriminant_adaptor must be 0 or more, not {power}")
        self.shrink, self.power = shrink, power
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.centre = nn.Parameter(torch.zeros(inputs))
        self.residual = nn.Linear(inputs, inputs)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)
        self.register_buffer("discriminant", torch.eye(inputs))
        self.head = nn.Linear(2 * inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``(n, inputs)`` to ``(n, outputs)``."""
        unit = F.normalize(x.flatten(1) - self.centre, dim=1)
        views = (unit + self.residual(unit), unit @ self.discriminant.T)
        both = torch.cat([F.normalize(view, dim=1) for view in views], 1)
        output: Tensor = self.head(self.scale * 2**-0.5 * both)
        return output

    def begin(self, x: Tensor, y: Tensor) -> None:
        """Take centre and discriminant from training examples, in place; of real targets the centre alone.

        Args:
            x: features ``(n, inputs)``.
            y: their classes ``(n,)``, or real targets.
        """
        x = x.flatten(1)
        self.centre.data.copy_(x.mean(0))
        if not y.is_floating_point():
            unit = F.normalize(x - x.mean(0), dim=1)
            self.discriminant.copy_(discriminant_of(unit, y, self.shrink, self.power))


def discriminant_of(x: Tensor, y: Tensor, shrink: float, power: float) -> Tensor:
    r"""Return the matrix in whose features classes lie apart, ``(d, d)``.

    .. math:: D = \mathrm{diag}\left(1 + \frac{\lambda_i}{\bar\lambda}\right)^{p} V^\top W^{-1/2}, \qquad
              W = (1 - a)\, \Sigma + a\, \frac{\mathrm{tr}\, \Sigma}{d} I

    with :math:`\Sigma` the covariance within classes, and :math:`\lambda`, V the variances and axes of the means of the
    classes after :math:`W^{-1/2}`. Fisher's discriminant would have p so large that the strongest directions alone
    count, which are those of the training classes and not of new ones. Cost: :math:`O(n d^2 + d^3)`.

    Args:
        x: features ``(n, d)``.
        y: classes ``(n,)``.
        shrink: a.
        power: p.
    """
    _, places = torch.unique(y, return_inverse=True)
    counts = torch.bincount(places).to(x.dtype)
    means = torch.zeros(len(counts), x.shape[1], dtype=x.dtype).index_add_(0, places, x) / counts[:, None]
    white = _inverse_root((x - means[places]).T.cov(correction=0), shrink)
    strengths, axes = torch.linalg.eigh(((means - means.mean(0)) @ white).T.cov(correction=0))
    strengths = strengths.clamp(min=0)
    stretch = (1 + strengths / strengths.mean().clamp(min=torch.finfo(x.dtype).tiny)) ** power
    found: Tensor = stretch[:, None] * (axes.T @ white)
    return found


def _inverse_root(cover: Tensor, shrink: float) -> Tensor:
    """Return the inverse square root of a covariance that is shrunk to its mean variance."""
    variances, axes = torch.linalg.eigh(cover)
    middle = variances.clamp(min=0).mean().clamp(min=torch.finfo(cover.dtype).tiny)
    spread = (1 - shrink) * variances.clamp(min=0) + shrink * middle
    root: Tensor = (axes * spread.rsqrt()) @ axes.T
    return root
