"""Heads from running sums: what a stream leaves behind is a few sums, and more examples are only added to them.

Shapes: n examples, d features, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.base import Start, Values, part
from rbml.strategy.heads import counted
from rbml.strategy.hyper import Scalar, as_scalar
from rbml.strategy.views import Features


class Sums(NamedTuple):
    """The running sums of the features of a stream: all that streaming heads remember of it.

    Sums of two parts of a stream, added leaf by leaf, are those of the whole, in whatever order it came.

    Attributes:
        number: how many examples of each class there were, ``(C,)``.
        total: the sum of their features, ``(C, d)``.
        second: the sum of :math:`f f^T` over all examples, ``(d, d)``.
    """

    number: Tensor
    total: Tensor
    second: Tensor

    @staticmethod
    def of(seen: Features) -> Sums:
        """Return the sums of some examples."""
        # F.one_hot looks at the values, which vmap does not allow.
        members = seen.y[:, None] == torch.arange(seen.ways, device=seen.y.device)
        members, x = counted(members.to(seen.features.dtype), seen), counted(seen.features, seen)
        return Sums(members.sum(0), members.T @ x, x.T @ x)

    def plus(self, other: Sums) -> Sums:
        """Return the sums of both parts; either may have seen fewer classes than the other."""
        number, total = (
            torch.zeros_like(max(pair, key=len)) for pair in ((self.number, other.number), (self.total, other.total))
        )
        for sums in (self, other):
            number[: len(sums.number)] += sums.number
            total[: len(sums.total)] += sums.total
        return Sums(number, total, self.second + other.second)

    def means(self) -> Tensor:
        """Return the mean of every class, ``(C, d)``; zero for a class without examples."""
        return self.total / self.number.clamp(min=1)[:, None]

    def spread(self, shrink: Tensor | float) -> Tensor:
        r"""Return the covariance within the classes, mixed with a multiple of the identity, ``(d, d)``.

        .. math:: (1 - \mathrm{shrink})\, \Sigma + \mathrm{shrink}\, \tfrac{\mathrm{tr}\, \Sigma}{d}\, I, \qquad
                  \Sigma = \frac1n \Big(\sum_i f_i f_i^T - \sum_k n_k \mu_k \mu_k^T\Big)
        """
        means, total = self.means(), self.number.sum().clamp(min=1)
        within = (self.second - (means * self.number[:, None]).T @ means) / total
        level = within.diagonal().mean()
        # With one example per class nothing is within a class: a little of the whole keeps the matrix regular.
        level = level + 1e-6 * self.second.diagonal().mean() / total
        eye = torch.eye(len(within), dtype=within.dtype, device=within.device)
        return (1 - shrink) * within + shrink * level * eye


@part
def lda(shrink: float | Scalar = 0.1, scale: float | Scalar = 1.0, name: str = "lda") -> Start:
    r"""Start the head as linear discriminant analysis: class means, seen through the covariance within the classes.

    .. math:: w_k = \mathrm{scale}\, \Lambda^{-1} \mu_k, \qquad b_k = -\tfrac12\, \mu_k \cdot w_k, \qquad
              \Lambda = (1 - \mathrm{shrink})\, \Sigma + \mathrm{shrink}\, \tfrac{\mathrm{tr}\, \Sigma}{d}\, I

    It depends on sums over the examples alone (:class:`Sums`), so that a stream may bring them one by one, in any
    order, and nothing is forgotten: streaming LDA (Hayes and Kanan 2020, arXiv:1909.01520). Differs: there the
    covariance is updated around means that still move, and mixed with the plain identity, at 1e-4; here it is exact,
    and its size does not matter. With ``shrink=1`` it is the nearest class mean. Cost: a system of d equations.

    The head raises a ``UsageError`` for real targets, which have no classes.

    Args:
        shrink: how much of the covariance is replaced by its mean on the diagonal; learn it with
            ``Scalar(0.1, bounds=(0, 1))``.
        scale: what the logits are multiplied by.
        name: the prefix of its numbers in phi.
    """

    def head(values: Values, seen: Features) -> tuple[Tensor, Tensor]:
        if seen.y.is_floating_point():
            raise UsageError(f"{name} makes a head of class means, but the targets are {seen.y.dtype}: use ridge")
        return discriminant(Sums.of(seen), values["shrink"][""], values["scale"][""])

    return Start(name, {"shrink": as_scalar(shrink), "scale": as_scalar(scale)}, head)


def discriminant(sums: Sums, shrink: Tensor | float, scale: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the head of :func:`lda` from running sums: weight ``(C, d)`` and bias ``(C,)``."""
    means = sums.means()
    weight: Tensor = scale * torch.linalg.solve(sums.spread(shrink), means.T).T
    return weight, -0.5 * (means * weight).sum(1)


def left_out(sums: Sums, seen: Features, shrink: Tensor | float, scale: Tensor | float = 1.0) -> Tensor:
    r"""Return the logits of examples that are in the sums, each by the head of all the others, ``(n, C)``.

    Without an example f of class k the scatter within the classes is smaller by one rank,

    .. math:: W' = W - \frac{n_k}{n_k - 1} (f - \mu_k)(f - \mu_k)^T,

    so that one eigendecomposition serves all of them (Sherman and Morrison 1950). Cost: d^3 + n C d.

    Args:
        sums: of all examples.
        seen: some of them; their classes have at least two examples each.
        shrink: as in :func:`lda`.
        scale: as in :func:`lda`.
    """
    means, total, dims = sums.means(), sums.number.sum(), sums.total.shape[1]
    values, basis = torch.linalg.eigh(sums.second - (means * sums.number[:, None]).T @ means)
    own, number = means[seen.y], sums.number[seen.y][:, None]
    gap, factor = seen.features - own, number / (number - 1)
    rest = total - 1
    trace = values.sum() - factor[:, 0] * gap.square().sum(1)
    raw = sums.second.diagonal().sum() - seen.features.square().sum(1)
    level = (trace + 1e-6 * raw) / (rest * dims)
    scales = (1 - shrink) / rest * values + shrink * level[:, None]  # the diagonal of the matrix without the one rank
    turned = means @ basis
    centres = turned.expand(len(gap), -1, -1).clone()  # (n, C, d), each example's own class without it
    centres[torch.arange(len(gap)), seen.y] = (own - gap / (number - 1)) @ basis
    side = gap @ basis / scales
    weight = (1 - shrink) / rest * factor[:, 0]
    weight = weight / (1 - weight * (side * (gap @ basis)).sum(1))
    along = torch.einsum("nd,ncd->nc", side, centres)
    solved = centres / scales[:, None] + (weight[:, None] * along)[:, :, None] * side[:, None]
    points = (seen.features @ basis)[:, None] - 0.5 * centres
    found: Tensor = scale * (points * solved).sum(-1)
    return found
