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

A run whose features are the same in every task knows more: the classes that it was trained on are what an example of
no class in particular looks like. Their mean is m then (with a = 1), and the score is a ratio of distances,

.. math:: s(x) = \min_k \log \|g(x) - c_k\|^2 - w \log \frac{1}{20} \sum_{b \in N(x)} \|g(x) - b\|^2

with N(x) the 20 of their means that are nearest to g(x): an example that is far from everything is not thereby unknown,
and one that is as near to many other classes is. w is 1, and 3 for features of pictures; then the last term is at most
that of the farthest example of training, so that a blank page is not excused by being far from everything.

What is far for a known example is learned from examples that were left out, so that no unknown ones are needed. With n
examples in a class, :math:`E\|f - c\|^2 = \sigma^2 (1 + 1/n)`: scores that were found with one example fewer are
corrected by that.

Shapes: n support examples, C classes, d features, m examples to judge, B classes of training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

VALIDATION = 25
"""How many scores of a task itself those of all validation tasks count for where its shape is found.

10 to 50 were about as good on four other divisions of the training and validation classes of the groceries."""

_TEN = 10  # scores of a task itself, for which the spread within validation tasks counts

_TINY = 1e-12

_SAME = 1e-3
"""A squared distance that tells nothing apart: without it, the same picture twice would be infinitely near."""

NEAREST = 20
"""How many classes of training an example is compared with; 10 to 20 were best on validation classes of the groceries.
Among so many it hardly matters that a user's class may have been a class of training itself."""


@dataclass(frozen=True)
class Background:
    """The classes that a learner was trained on, in features of length 1 that no task changes.

    Attributes:
        middle: the mean of their means, ``(d,)``.
        centres: the mean of each of them, after features are without the middle, ``(B, d)``.
        weight: w, by which the distance counts.
        farthest: the largest distance that counts.
    """

    middle: Tensor
    centres: Tensor
    weight: float = 1.0
    farthest: float = math.inf

    @staticmethod
    def of(features: Tensor, y: Tensor, weight: float = 1.0) -> Background:
        """Return the background of features ``(n, d)`` of length 1, of classes ``(n,)``, of each at least one.

        Args:
            features: of training examples.
            y: their classes.
            weight: w; with more than 1, no distance counts that is larger than those of these examples.
        """
        shares = _shares(y, int(y.max()) + 1, features.dtype)
        middle = (shares @ features).mean(0)
        apart = functional.normalize(features - middle)
        found = Background(middle, shares @ apart, weight)
        return found if weight <= 1 else replace(found, farthest=found.distance(apart).max().item())

    def distance(self, features: Tensor) -> Tensor:
        """Return the log of the mean squared distance to the nearest classes, of ``(m, d)`` without the middle."""
        apart = _squared(features, self.centres)
        nearest = apart.topk(min(NEAREST, len(self.centres)), largest=False).values
        return (nearest.mean(1) + _SAME).log().clamp(max=self.farthest)

    def to_content(self) -> dict[str, Any]:
        """Return its values for a file."""
        return dict(vars(self))


@dataclass(frozen=True)
class Memory:
    """What an adapted model remembers of its support set.

    Attributes:
        layer: the head, whose inputs are the features; empty where the model has none: the outputs are taken.
        centres: the mean features of each class, ``(C, d)``.
        middle: the middle of all classes, times its share a, which features are without, ``(d,)``; ``None`` in former
            files: features are with it.
        background: the classes of training; ``None`` where there are none.
    """

    layer: str
    centres: Tensor
    middle: Tensor | None = None
    background: Background | None = None

    @staticmethod
    def of(adapted: Adapted, layer: str, support: Batch, ways: int, background: Background | None = None) -> Memory:
        """Return the memory of a support set ``(n, ...)`` whose inputs are ready for the model."""
        return Memory.from_features(layer, features_of(adapted, layer, support.x), support.y, ways, background)

    @staticmethod
    def from_features(
        layer: str, features: Tensor, y: Tensor, ways: int, background: Background | None = None
    ) -> Memory:
        """Return the memory of features ``(n, d)`` of length 1, of classes ``(n,)``."""
        shares = _shares(y, ways, features.dtype)
        middle = _common(shares @ features) if background is None else background.middle
        return Memory(layer, shares @ functional.normalize(features - middle), middle, background)

    def score(self, adapted: Adapted, x: Any) -> Tensor:
        """Return how far each example is from the nearest class, ``(m,)``, as the log of a square: low is known."""
        return self.distance(features_of(adapted, self.layer, x))

    def distance(self, features: Tensor) -> Tensor:
        """Return the same of features ``(m, d)`` of length 1."""
        if self.middle is not None:
            features = functional.normalize(features - self.middle)
        own = (_squared(features, self.centres).amin(1) + _SAME).log()
        known = self.background
        return own if known is None else own - known.weight * known.distance(features)

    def to_content(self) -> dict[str, Any]:
        """Return its values for a file."""
        background = None if self.background is None else self.background.to_content()
        return {"layer": self.layer, "centres": self.centres, "middle": self.middle, "background": background}

    @staticmethod
    def from_content(values: Mapping[str, Any]) -> Memory:
        """Return what :meth:`to_content` gave, here or in a former rbml."""
        background = values.get("background")
        known = None if background is None else Background(**background)
        return Memory(values["layer"], values["centres"], values.get("middle"), known)


def _shares(y: Tensor, ways: int, dtype: torch.dtype) -> Tensor:
    """Return what each example counts for the mean of each class, ``(ways, n)``."""
    members = (y[:, None] == torch.arange(ways)).to(dtype)
    return (members / members.sum(0).clamp(min=1)).T


def _squared(features: Tensor, centres: Tensor) -> Tensor:
    """Return the squared distances of features ``(m, d)`` to centres ``(k, d)``, ``(m, k)``."""
    return torch.stack([((features - centre) ** 2).sum(1) for centre in centres], 1)


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
    """How far known examples usually are.

    Attributes:
        mean: of their scores.
        std: the standard deviation of scores within a task.
        count: how many scores it was found from.
        between: the standard deviation of the mean from one task to the next, where it is not that of this task.
        shape: the quantiles 0 %, 1 % ... 100 % of scores less their mean, divided by their standard deviation. They are
            known where there are many scores, of validation tasks; empty: a normal distribution.
        own: the same of scores less the mean of the scores that were left out in the same task, divided by the standard
            deviation that is found with them: how a further example of a task compares with those. Empty: not known.
    """

    mean: float
    std: float
    count: int
    between: float = 0.0
    shape: tuple[float, ...] = ()
    own: tuple[float, ...] = ()

    @staticmethod
    def of(scores: Tensor, other: Usual | None = None) -> Usual | None:
        """Return the distribution of scores ``(m,)``; ``None`` if there are too few to tell.

        Mean and standard deviation are those of the task itself. Its shape is that of both: tasks differ in how far out
        their farthest examples are, and a few scores do not tell it alone. Each score of the task, as it compares with
        the others of the task, counts as one, and those of all validation tasks together as :data:`VALIDATION`.

        Args:
            scores: of examples that were left out.
            other: of other tasks of the same size: their spread counts as much as that of ten examples here.
        """
        total = len(scores)
        if total < 2 or (total < 4 and other is None):
            return other
        if other is None:
            return Usual(scores.double().mean().item(), scores.double().std().item(), total)
        mean, std = scores.double().mean().item(), _within(scores, other.std)
        shape = _mixed(_against_others(scores.double(), other.std), other.own) if other.own else other.shape
        return Usual(mean, std, total + _TEN, shape=shape)  # the shape itself is that of former files

    @staticmethod
    def of_tasks(scores: Sequence[Tensor], left_out: Sequence[Tensor] = ()) -> Usual:
        """Return the distribution of the scores ``(m,)`` of each of several tasks, m at least 2.

        Its threshold is the quantile of all scores as they are. No normal distribution stands for them: a distance
        between directions is bounded, and with one example per class most scores are near the bound, so that the end
        of a normal distribution lies where no score can be.

        Args:
            scores: of the queries of each task.
            left_out: of the support examples of the first of these tasks, each left out, as in :meth:`of`.
        """
        each = torch.stack([one.double().mean() for one in scores])
        within = torch.stack([one.double().var() for one in scores]).mean().clamp(min=_TINY)
        share = statistics.fmean(1 / len(one) for one in scores)  # of the variance within is in that of the means
        between = (each.var(correction=min(1, len(each) - 1)) - share * within).clamp(min=0)
        pooled = torch.cat(list(scores)).double()
        found = Usual(pooled.mean().item(), within.sqrt().item(), len(pooled), between.sqrt().item())
        ratios = []
        for own, further in zip(left_out, scores, strict=False):
            here = Usual(own.double().mean().item(), _within(own, found.std), len(own) + _TEN)
            ratios.append((further.double() - here.mean) / here._spread())
        known = _quantiles(torch.cat(ratios)) if ratios else ()
        return replace(found, shape=_quantiles((pooled - found.mean) / found._spread()), own=known)

    def threshold(self, rate: float = RATE) -> float:
        r"""Return the score above which an example counts as unknown.

        .. math:: \mathrm{mean} + q(1 - \mathrm{rate})\; \sqrt{s^2 (1 + 1/m) + b^2},

        the end of a one-sided prediction interval. q is the quantile of the shape, where that is known, and else of
        Student's t with m - 1 degrees of freedom, which grows where there are few examples.
        """
        if not self.shape:
            return self.mean + student(1 - rate, self.count - 1) * self._spread()
        place = (1 - rate) * (len(self.shape) - 1)
        below = min(int(place), len(self.shape) - 2)
        low, high = self.shape[below : below + 2]
        return self.mean + (low + (place - below) * (high - low)) * self._spread()

    def _spread(self) -> float:
        """Return the standard deviation of the score of a further example, less what is known of the mean."""
        return math.sqrt(self.std**2 * (1 + 1 / self.count) + self.between**2)

    def to_content(self) -> dict[str, Any]:
        """Return plain values."""
        return vars(self) | {"shape": list(self.shape), "own": list(self.own)}

    @staticmethod
    def from_content(values: Mapping[str, Any] | None) -> Usual | None:
        """Return what :meth:`to_content` gave; ``None`` for ``None``. Former files have fewer values."""
        if values is None:
            return None
        return Usual(**{**values, "shape": tuple(values.get("shape", ())), "own": tuple(values.get("own", ()))})


def _within(scores: Tensor, usual: float) -> float:
    """Return the standard deviation of scores ``(m,)``; the usual one counts as much as ten of them."""
    squares = (scores.double() - scores.double().mean()).square().sum().item()
    return math.sqrt((squares + _TEN * usual**2) / (len(scores) - 1 + _TEN))


def _quantiles(values: Tensor) -> tuple[float, ...]:
    """Return the quantiles 0 %, 1 % ... 100 % of values ``(m,)``."""
    return tuple(values.quantile(torch.linspace(0, 1, 101, dtype=values.dtype)).tolist())


def _against_others(scores: Tensor, usual: float) -> Tensor:
    """Return each score ``(m,)`` less the mean of the others, divided by the standard deviation found with them."""
    m, apart = len(scores), scores - scores.mean()
    squares = (apart.square().sum() - apart.square() * m / (m - 1)).clamp(min=0)
    spread = ((squares + _TEN * usual**2) / (m - 2 + _TEN) * (1 + 1 / (m - 1 + _TEN))).sqrt()
    return apart * (m / (m - 1)) / spread


def _mixed(ratios: Tensor, shape: Sequence[float]) -> tuple[float, ...]:
    """Return the quantiles 0 %, 1 % ... 100 % of own values ``(m,)`` and those of a shape together."""
    values, order = torch.cat([ratios, torch.tensor(shape, dtype=ratios.dtype)]).sort()
    weights = torch.cat([torch.ones_like(ratios), ratios.new_full((len(shape),), VALIDATION / len(shape))])[order]
    places = (weights.cumsum(0) - weights / 2) / weights.sum()
    levels = torch.linspace(0, 1, len(shape), dtype=ratios.dtype)
    above = torch.searchsorted(places, levels).clamp(1, len(places) - 1)
    low, high = places[above - 1], places[above]
    share = ((levels - low) / (high - low)).clamp(0, 1)
    return tuple((values[above - 1] + share * (values[above] - values[above - 1])).tolist())


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
