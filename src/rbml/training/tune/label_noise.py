r"""How many labels are wrong, and which: a model of wrong labels on top of predictions that did not see them.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rbml.errors import UsageError

_LARGEST = 0.9
"""The largest noise rate that is considered: beyond it labels say next to nothing."""


_USUAL, _SPREAD = math.log(3.0), 0.4
"""The logarithm of the sharpness that is expected before labels are seen, and how far it usually is from that."""

_SHARPNESS = (1.0, 1.5, 2.0, 3.0, 4.5)
"""What is tried for the model with a rate for every pair of classes."""

_STRENGTH, _ROUNDS, _FOLDS = 10.0, 20, 5
"""How many labels of a class the expectation is worth that its errors go to all others alike; rounds of fitting; folds
in which it is found out whether errors depend on the class."""


@dataclass(frozen=True)
class LabelNoise:
    r"""Labels of which a share is wrong, by symmetric errors or with a rate for every pair of classes.

    .. math:: P(z \mid x) = \sum_c q_c(x)\, T_{cz}, \qquad q = \mathrm{softmax}(\tau \log p)

    with p the probabilities of a model that has not seen the label z of x. With symmetric errors :math:`T_{cc} = 1 - e`
    and all other entries are alike, as in Natarajan et al. 2013 ("Learning with noisy labels", NeurIPS); a rate for
    every pair is what confident learning estimates too, by counts instead of a likelihood (Northcutt et al. 2021,
    arXiv:1911.00068). The chance that a label is right is :math:`q_z T_{zz} / P(z \mid x)`. The temperature makes up
    for a model that learned from wrong labels and is too timid (Guo et al. 2017, arXiv:1706.04599).

    Attributes:
        rate: e, the share of wrong labels.
        sharpness: :math:`\tau`, one over the temperature.
        pairs: T, ``(C, C)``, of a true class (row) to a label; ``None`` if errors are symmetric.
    """

    rate: float
    sharpness: float
    pairs: Tensor | None = None

    @staticmethod
    def fitted(probabilities: Tensor, y: Tensor) -> LabelNoise:
        """Return the likeliest model, where a sharpness around 3 is expected.

        Errors are taken as symmetric unless a rate for every pair predicts held-out labels better, in five folds: pairs
        are many numbers, and models that learned from labels that are often wrong in the same way predict these, so
        that symmetric errors explain none of them.

        With few examples the labels alone hardly tell soft predictions of right labels from sharp ones of labels that
        are partly wrong (178 wines: shares of 2 % and 20 % may differ by four nats). The expectation, a normal one of
        the logarithm, weighs as much for any number of examples, so that it counts where the labels say little.

        Args:
            probabilities: p, ``(N, C)``.
            y: the labels z, ``(N,)``.

        Raises:
            UsageError: for a single class.
        """
        if probabilities.shape[1] < 2:
            raise UsageError("wrong labels can only be told apart with at least 2 classes")
        logs = probabilities.double().clamp(min=1e-12).log()
        symmetric = _symmetric(logs, y)
        # With two classes errors go to the other one in any case.
        if probabilities.shape[1] == 2 or len(y) < 2 * _FOLDS:
            return symmetric
        fold, better = torch.arange(len(y)) % _FOLDS, 0.0  # not one after another: examples are often sorted by class
        for one in range(_FOLDS):
            inside, outside = fold != one, fold == one
            own, other = _by_pairs(logs[inside], y[inside]), _symmetric(logs[inside], y[inside])
            better += own.likelihood(logs[outside], y[outside]) - other.likelihood(logs[outside], y[outside])
        return _by_pairs(logs, y) if better > 0 else symmetric

    def right(self, probabilities: Tensor, y: Tensor) -> Tensor:
        """Return the chance that each label is right, ``(N,)``; arguments as in :meth:`fitted`."""
        right, wrong = self._parts(probabilities.double().clamp(min=1e-12).log(), y)
        return (right / (right + wrong).clamp(min=1e-300)).to(probabilities.dtype)

    def likelihood(self, logs: Tensor, y: Tensor) -> float:
        """Return the logarithm of how likely all labels are; ``logs`` of the probabilities."""
        right, wrong = self._parts(logs, y)
        return float((right + wrong).clamp(min=1e-12).log().sum())

    def confused(self, least: float = 0.05) -> list[tuple[int, int, float]]:
        """Return a true class, a wrong label that it often gets, and in which share, for every such pair.

        The most frequent pair comes first; there is none where errors are symmetric.

        Args:
            least: the share from which on a pair counts.
        """
        if self.pairs is None:
            return []
        off = self.pairs - torch.diag(self.pairs.diagonal())
        places = [(int(true), int(label)) for true, label in (off >= least).nonzero()]
        found = [(true, label, float(off[true, label])) for true, label in places]
        return sorted(found, key=lambda one: -one[2])

    def _parts(self, logs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.pairs is None:
            return _parts(logs, y, torch.tensor(self.sharpness), torch.tensor(self.rate))
        each = (logs * self.sharpness).softmax(1) * self.pairs[:, y].T
        right = each.gather(1, y[:, None])[:, 0]
        return right, (each.sum(1) - right).clamp(min=0)


def _symmetric(logs: Tensor, y: Tensor) -> LabelNoise:
    """Return the likeliest rate and sharpness of symmetric errors."""
    raw = torch.tensor([_USUAL, -1.5], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([raw], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        right, wrong = _parts(logs, y, raw[0].exp(), _LARGEST * raw[1].sigmoid())
        expected = ((raw[0] - _USUAL) / _SPREAD).square() / (2 * len(y))
        value = expected - (right + wrong).clamp(min=1e-12).log().mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    sharpness, rate = raw.detach().exp()[0], _LARGEST * raw.detach().sigmoid()[1]
    return LabelNoise(float(rate), float(sharpness))


def _by_pairs(logs: Tensor, y: Tensor) -> LabelNoise:
    """Return the likeliest rates of all pairs, by expectation and maximisation, for the best of some sharpnesses."""
    found = [_of_pairs(logs, y, sharpness) for sharpness in _SHARPNESS]

    def quality(one: LabelNoise) -> float:
        return one.likelihood(logs, y) - ((math.log(one.sharpness) - _USUAL) / _SPREAD) ** 2 / 2

    return max(found, key=quality)


def _of_pairs(logs: Tensor, y: Tensor, sharpness: float) -> LabelNoise:
    classes, rate = logs.shape[1], 0.1
    q = (logs * sharpness).softmax(1)
    pairs = _alike(classes, rate)
    for _ in range(_ROUNDS):
        each = q * pairs[:, y].T
        each = each / each.sum(1, keepdim=True).clamp(min=1e-300)  # the chance of every true class, (N, C)
        counts = torch.zeros(classes, classes, dtype=torch.float64).index_add_(1, y, each.T)
        rate = min(max(1 - float(counts.diagonal().sum() / counts.sum()), 1e-6), _LARGEST)
        pairs = counts + _STRENGTH * _alike(classes, rate)
        pairs = pairs / pairs.sum(1, keepdim=True)
    return LabelNoise(rate, sharpness, pairs)


def _alike(classes: int, rate: float) -> Tensor:
    """Return the rates of all pairs for symmetric errors, ``(C, C)``."""
    return torch.full((classes, classes), rate / (classes - 1), dtype=torch.float64).fill_diagonal_(1 - rate)


def _parts(logs: Tensor, y: Tensor, sharpness: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return the likelihood of every label through being right, and through being wrong, ``(N,)`` each."""
    q = (logs * sharpness).log_softmax(1).gather(1, y[:, None])[:, 0].exp()
    return (1 - rate) * q, rate * (1 - q) / (logs.shape[1] - 1)
