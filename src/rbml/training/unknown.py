r"""None of these: how an adapted model knows that an example is of none of the classes that it was shown.

The score of an example is how far its features (what enters the head) are from the nearest class mean,

.. math:: s(x) = \min_k \log \|g(x) - c_k\|^2, \qquad
          g(x) = \frac{f(x) - a\, m}{\|f(x) - a\, m\|}, \qquad f(x) = \frac{h(x)}{\|h(x)\|}, \qquad
          a = \max\left(0,\; 1 - \frac{\sum_k \|m_k - m\|^2}{C (C - 1)\, \|m\|^2}\right)

with h the features, c the means of g over each class, :math:`m_k` those of f, and m their mean. What all examples have
in common takes up most of the length of raw features; without it, distances show more of what tells examples apart.
The share a (James and Stein 1961) leaves features as they are where a run has learned to centre them: their mean over
a few classes is then only chance. Largest logits and probabilities tell unseen classes much worse, and so do features
of their own length: see ``benchmarks/trust.py``.

What is far for a known example is learned from examples that were left out, so that no unknown ones are needed. With n
examples in a class, :math:`E\|f - c\|^2 = \sigma^2 (1 + 1/n)`: scores that were found with one example fewer are
corrected by that.

Shapes: n support examples, C classes, d features, m examples to judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rbml.autodiff import module as modules
from rbml.data.batch import Batch
from rbml.learner import Adapted, Learner
from rbml.learner.initial import head_layer_name

RATE = 0.05
"""The share of known examples that may be called unknown."""

_TINY = 1e-12


@dataclass(frozen=True)
class Memory:
    """What an adapted model remembers of its support set.

    Attributes:
        layer: the head, whose inputs are the features; empty where the model has none: the outputs are taken.
        centres: the mean features of each class, ``(C, d)``.
        middle: the middle of all classes, times its share a, which features are without, ``(d,)``; ``None`` in former
            files: features are with it.
    """

    layer: str
    centres: Tensor
    middle: Tensor | None = None

    @staticmethod
    def of(adapted: Adapted, layer: str, support: Batch, ways: int) -> Memory:
        """Return the memory of a support set ``(n, ...)`` whose inputs are ready for the model."""
        return Memory.from_features(layer, features_of(adapted, layer, support.x), support.y, ways)

    @staticmethod
    def from_features(layer: str, features: Tensor, y: Tensor, ways: int) -> Memory:
        """Return the memory of features ``(n, d)`` of length 1, of classes ``(n,)``."""
        members = (y[:, None] == torch.arange(ways)).to(features.dtype)
        shares = (members / members.sum(0).clamp(min=1)).T
        middle = _common(shares @ features)
        return Memory(layer, shares @ functional.normalize(features - middle), middle)

    def score(self, adapted: Adapted, x: Any) -> Tensor:
        """Return the log of the squared distance of each example to the nearest class, ``(m,)``: low is known."""
        return self.distance(features_of(adapted, self.layer, x))

    def distance(self, features: Tensor) -> Tensor:
        """Return the same of features ``(m, d)`` of length 1."""
        if self.middle is not None:
            features = functional.normalize(features - self.middle)
        apart = ((features[:, None] - self.centres) ** 2).sum(-1)
        return (apart.amin(1) + _TINY).log()

    def to_content(self) -> dict[str, Any]:
        """Return its values for a file."""
        return {"layer": self.layer, "centres": self.centres, "middle": self.middle}


def _common(means: Tensor) -> Tensor:
    """Return what the means of classes ``(C, d)`` have in common, shrunk by how much of it may be chance, ``(d,)``."""
    middle = means.mean(0)
    chance = ((means - middle) ** 2).sum() / (len(means) * max(1, len(means) - 1))
    return middle * (1 - chance / (middle**2).sum().clamp(min=_TINY)).clamp(min=0)


def layer_of(learner: Learner) -> str:
    """Return the name of the learner's head; empty if it has none."""
    return head_layer_name(learner.model, learner.initial.head.pattern)


def features_of(adapted: Adapted, layer: str, x: Any) -> Tensor:
    """Return what enters the head, scaled to length 1, ``(n, d)``, on the processor."""
    with torch.no_grad():
        if not layer:
            return functional.normalize(adapted(x).flatten(1)).cpu()
        stored = None if adapted.transductive else modules.running_statistics(adapted.model)
        found = modules.inputs_of(adapted.model, {}, adapted.placed(x), layer, stored)
        return functional.normalize(found.flatten(1)).cpu()


@dataclass(frozen=True)
class Usual:
    """How far known examples usually are: a normal distribution of their scores.

    Attributes:
        mean: of the scores.
        std: their standard deviation.
        count: how many scores it was found from.
    """

    mean: float
    std: float
    count: int

    @staticmethod
    def of(scores: Tensor, other: Usual | None = None) -> Usual | None:
        """Return the distribution of scores ``(m,)``; ``None`` if there are too few to tell.

        Args:
            scores: of examples that were left out.
            other: of other tasks of the same size: their spread counts as much as that of ten examples here.
        """
        total = len(scores)
        if total < 2 or (total < 4 and other is None):
            return other
        mean, squares = scores.double().mean().item(), (scores.double() - scores.double().mean()).square().sum().item()
        if other is None:
            return Usual(mean, math.sqrt(squares / (total - 1)), total)
        return Usual(mean, math.sqrt((squares + 10 * other.std**2) / (total - 1 + 10)), total + 10)

    def threshold(self, rate: float = RATE) -> float:
        r"""Return the score above which an example counts as unknown.

        .. math:: \mathrm{mean} + t_{m-1}(1 - \mathrm{rate})\; s\, \sqrt{1 + 1/m},

        the end of a one-sided prediction interval, whose quantile of Student's t grows where there are few examples.
        """
        return self.mean + student(1 - rate, self.count - 1) * self.std * math.sqrt(1 + 1 / self.count)

    def to_content(self) -> dict[str, Any]:
        """Return plain values."""
        return {"mean": self.mean, "std": self.std, "count": self.count}

    @staticmethod
    def from_content(values: Mapping[str, Any] | None) -> Usual | None:
        """Return what :meth:`to_content` gave; ``None`` for ``None``."""
        return None if values is None else Usual(values["mean"], values["std"], values["count"])


def student(share: float, freedom: int) -> float:
    """Return a quantile of Student's t by its series around the normal one (Abramowitz and Stegun, 26.7.5).

    >>> round(student(0.95, 9), 2), round(student(0.975, 30), 2)
    (1.83, 2.04)
    """
    z = NormalDist().inv_cdf(share)
    terms = ((z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return z + sum(term * float(freedom) ** -power for power, term in enumerate(terms, 1))


def grown(members: Tensor) -> Tensor:
    r"""Return what to add to scores that were found with one example fewer in each class, ``(m,)``.

    .. math:: \log \frac{1 + 1/n}{1 + 1/(n-1)}

    Args:
        members: n, how many examples the class of each has, ``(m,)``, at least 2.
    """
    n = members.double()
    return ((1 + 1 / n) / (1 + 1 / (n - 1))).log()
