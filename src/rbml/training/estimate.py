"""How well new examples will be predicted, estimated from the labelled examples alone: cross-validation.

Every fold leaves out one example of each class. Leaving out single examples would make the classes unequal, which
biases learners that take gradient steps against the smaller class: such an estimate was 24 % where 59 % was true.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rbml.data.batch import Batch, rows
from rbml.data.targets import Baseline, Metric, Target
from rbml.learner import Learner
from rbml.training.evaluator import Score
from rbml.training.folds import folds, passes

_SHARED = 1.5
"""Folds share most of their training examples, so that their errors are not independent: an interval is as wide as for
so many times fewer examples. Without this, 89 % of the intervals had the truth (``benchmarks/estimate.py``)."""

_Z = 1.959964  # the 97.5 % quantile of the normal distribution

Advance = Callable[[int], None]


@dataclass(frozen=True)
class LeftOut:
    """What was predicted for examples by models that had not seen them.

    Attributes:
        places: which examples, ``(m,)``, fold by fold.
        prediction: for each of them ``(m, ...)``.
        truth: their inputs and targets.
    """

    places: Tensor
    prediction: Tensor
    truth: Batch

    def each(self, metric: Metric) -> Tensor:
        """Return a metric of each example by itself, ``(m,)``."""
        found = []
        for place in range(len(self.places)):
            at = torch.tensor([place])
            found.append(metric.of(self.prediction[at], rows(self.truth, at)).double())
        return torch.stack(found)


def left_out(
    predict: Baseline, support: Batch, left: Sequence[Tensor], advance: Advance = lambda count: None
) -> LeftOut:
    """Predict the examples that each fold leaves out from the others.

    Args:
        predict: from a support set and queries to predictions: a learner (:func:`adapting`) or a baseline.
        support: the examples ``(n, ...)``.
        left: what :func:`folds` returned; at least one fold.
        advance: called with the number of examples predicted since the last call, for a progress bar.
    """
    found = []
    for fold in left:
        stays = torch.ones(support.size, dtype=torch.bool)
        stays[fold] = False
        found.append(predict(rows(support, torch.nonzero(stays).flatten()), rows(support, fold)))
        advance(len(fold))
    places = torch.cat(list(left))
    return LeftOut(places, torch.cat(found), rows(support, places))


def adapting(learner: Learner, ways: int | None = None) -> Baseline:
    """Return the function that adapts a learner to a support set and predicts queries; ``ways`` classes if given."""

    def predict(rest: Batch, queries: Batch) -> Tensor:
        adapted = learner.adapt(*rest, ways=ways)
        with torch.no_grad():
            prediction: Tensor = adapted(queries.x).cpu()
        return prediction

    return predict


def leave_out(
    learner: Learner, support: Batch, target: Target, ways: int | None = None, advance: Advance = lambda count: None
) -> Score | None:
    """Predict examples of a support set after adapting to the others: an estimate of how well new ones are predicted.

    Args:
        learner: the learner.
        support: the examples ``(n, ...)``.
        target: its first metric is computed for every example by itself.
        ways: the number of classes; ``None`` for other targets.
        advance: called with the number of examples predicted since the last call.

    Returns:
        The metric over the examples that could be left out, or ``None`` if there are none: see :func:`folds`.
    """
    left = folds(support.y)
    if not left:
        return None
    return Score.of(left_out(adapting(learner, ways), support, left, advance).each(target.metrics[0]))


def wilson(right: float, total: float) -> tuple[float, float]:
    r"""Return the 95 % interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22).

    .. math:: \frac{p + z^2/2n \pm z \sqrt{p(1-p)/n + z^2/4n^2}}{1 + z^2/n}

    Args:
        right: how many of the examples, n p.
        total: n, at least 1.

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    share, square = right / total, _Z**2 / total
    reach = _Z * math.sqrt(max(share * (1 - share), 0.0) / total + square / (4 * total))
    centre = share + square / 2
    return max(0.0, (centre - reach) / (1 + square)), min(1.0, (centre + reach) / (1 + square))


def shared_wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count`` examples, predicted by models that share most of theirs."""
    total = count / _SHARED
    return wilson(share * total, total)


def exact_p(wins: int, losses: int) -> float:
    """Return the two-sided p-value of a paired comparison: the sign test, for classes McNemar's exact test.

    Args:
        wins: on how many examples the first is better than the second.
        losses: on how many it is worse; ties do not count.

    >>> exact_p(3, 3), round(exact_p(9, 1), 4)
    (1.0, 0.0215)
    """
    total, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(total, k) for k in range(fewer + 1))
    return min(1.0, math.ldexp(2.0 * tail, -total))


@dataclass(frozen=True)
class Rival:
    """A baseline on the same folds.

    Attributes:
        name: of the baseline, with what it looks at.
        value: its metric.
        p: of the paired comparison with the learner.
        ahead: whether its metric is better than the learner's.
    """

    name: str
    value: float
    p: float
    ahead: bool


@dataclass(frozen=True)
class Estimate:
    """How well new examples are likely to be predicted.

    Attributes:
        metric: what is measured: the first metric of the target.
        value: its mean over the examples that were left out, over all passes.
        low: the lower end of its 95 % interval.
        high: the upper end.
        total: how many examples were left out.
        folds: in how many folds, of all passes.
        rivals: the baselines, the best one first.
        confusion: for classes how often each class (row) was taken for each class (column), ``(C, C)``; else ``None``.
        left: what was predicted in the first pass.
        measured: the mean in the first pass, which the baselines see as well, with one example fewer of each class than
            there are.
        corrected: whether :meth:`with_gain` counted in the examples that were left out.
    """

    metric: Metric
    value: float
    low: float
    high: float
    total: int
    folds: int
    rivals: tuple[Rival, ...]
    confusion: Tensor | None
    left: LeftOut
    measured: float
    corrected: bool = False

    def with_gain(self, fewer: float, all_of_them: float, error: float) -> Estimate:
        r"""Return the estimate corrected for the examples that were left out, which the model to be used has seen.

        .. math:: \mathrm{logit}\,a' = \mathrm{logit}\,a + g \max(0, 1 - v / g^2), \qquad
                  g = \max(0, \mathrm{logit}\,a_K - \mathrm{logit}\,a_{K-1}), \qquad
                  v = \left(\frac{e}{\bar a (1 - \bar a)}\right)^2

        with v the variance of g and :math:`\bar a` the mean of both accuracies: a gain that may be chance is made
        smaller, down to nothing (James and Stein 1961).

        Args:
            fewer: :math:`a_{K-1}`, the accuracy of the learner on other tasks with one example fewer per class.
            all_of_them: :math:`a_K`, the same with as many as here.
            error: e, the standard error of :math:`a_K - a_{K-1}`. Both are measured on the same queries, so that it is
                much smaller than that of either.
        """
        gain = max(0.0, _logit(all_of_them) - _logit(fewer))
        middle = min(max((fewer + all_of_them) / 2, 1e-6), 1 - 1e-6)
        variance = (error / (middle * (1 - middle))) ** 2
        gain *= max(0.0, 1 - variance / gain**2) if gain else 0.0
        bounds = (self.value, self.low, self.high)
        value, low, high = (_share(_logit(one) + gain) if 0 < one < 1 else one for one in bounds)
        return replace(self, value=value, low=low, high=high, corrected=gain > 0)

    @property
    def chance(self) -> float | None:
        """What guessing gives; ``None`` where there is no such number."""
        return None if self.confusion is None else 1 / len(self.confusion)

    @property
    def verdict(self) -> str:
        """Compare with the best baseline: ``"ahead"``, ``"behind"`` or ``"even"``: they cannot be told apart."""
        if not self.rivals or self.rivals[0].p >= 0.05:
            return "even" if self.rivals else "ahead"
        return "behind" if self.rivals[0].ahead else "ahead"


def estimate(
    predict: Baseline,
    support: Batch,
    target: Target,
    features: Mapping[str, Tensor] | None = None,
    ways: int | None = None,
    advance: Advance = lambda count: None,
) -> Estimate | None:
    """Estimate how well new examples are predicted, beside the target's baselines on the same folds.

    Args:
        predict: the learner, of :func:`adapting`.
        support: the examples ``(n, ...)``.
        target: decides the metric and the baselines.
        features: what the baselines look at, by name, ``(n, d)`` each; ``None`` means the inputs as they are.
        ways: how many classes there are; ``None`` for other targets.
        advance: called with the number of examples that are newly done: in all, all of them :func:`passes` times.

    Returns:
        ``None`` if nothing can be left out, because no class has two examples.
    """
    left = folds(support.y)
    if not left:
        return None
    metric = target.metrics[0]
    own = left_out(predict, support, left, advance)
    each = own.each(metric)
    others = [folds(support.y, again=again) for again in range(1, passes(support.y))]
    more = [left_out(predict, support, some, advance).each(metric) for some in others]
    value = torch.cat([each, *more]).mean().item()
    rivals = []
    for what, seen in (features or {"": support.x}).items():
        for name, baseline in target.baselines.items():
            other = left_out(baseline, Batch(seen, support.y), left).each(metric)
            rivals.append(_rival(f"{name} on {what}" if what else name, each, other, metric))
    sign = -1 if metric.better == "higher" else 1
    low, high = _interval(each, value, metric)
    return Estimate(
        metric, value, low, high, len(each), len(left) + sum(map(len, others)),
        tuple(sorted(rivals, key=lambda rival: sign * rival.value)),
        None if ways is None else confusion(own.prediction.argmax(-1), own.truth.y, ways), own,
        each.mean().item(),
    )  # fmt: skip


def confusion(found: Tensor, truth: Tensor, ways: int) -> Tensor:
    """Return how often each class (row) was taken for each class (column), ``(C, C)``.

    >>> confusion(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return torch.bincount(truth * ways + found, minlength=ways * ways).reshape(ways, ways)


def _rival(name: str, own: Tensor, other: Tensor, metric: Metric) -> Rival:
    gain = own - other if metric.better == "higher" else other - own
    value = other.mean().item()
    p = exact_p(int((gain > 0).sum()), int((gain < 0).sum()))
    return Rival(name, value, p, metric.improves(value, own.mean().item()))


def _logit(share: float) -> float:
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(share / (1 - share))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _interval(each: Tensor, value: float, metric: Metric) -> tuple[float, float]:
    if metric.unit == "%":
        return shared_wilson(value, len(each))
    score = Score.of(each)
    low = score.mean - score.interval
    return max(low, 0.0) if metric.better == "lower" else low, score.mean + score.interval
