"""Which labelled examples are left out together in cross-validation."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_FOLDS = 10
"""More folds than this cost time, and hardly change an estimate."""

_ONE_BY_ONE = 40
"""Real values are left out one at a time up to so many examples."""


def folds(y: Tensor, most: int = MOST_FOLDS, again: int = 0) -> list[Tensor]:
    """Return the places of the examples that each fold leaves out.

    Of classes, a fold leaves out one example of each; where a class has more than ``most`` examples, a tenth of each.
    A class with fewer examples than there are folds is left out in some of them only. The only example of a class is
    never left out. Of real values, examples are left out one at a time, or in ten groups if there are many.

    Args:
        y: the targets ``(n, ...)``.
        most: the largest number of folds.
        again: 0 takes the examples of each class in their order; other numbers shuffle them, each in its own way.

    Returns:
        For each fold places ``(m,)``; an empty list if nothing can be left out.

    >>> [fold.tolist() for fold in folds(torch.tensor([0, 0, 1, 1, 1, 2]))]
    [[0, 2], [3], [1, 4]]
    """
    if y.is_floating_point() or y.dim() != 1:
        total = len(y)
        count = total if total <= _ONE_BY_ONE else most
        return [torch.arange(total)[start::count] for start in range(count)] if total > 1 else []
    counts = torch.bincount(y)
    count = min(most, int(counts.max()))
    if count < 2:
        return []
    found: list[list[int]] = [[] for _ in range(count)]
    for label, members in enumerate(counts.tolist()):
        if members < 2:
            continue
        own = torch.nonzero(y == label).flatten()
        if again:
            own = own[torch.randperm(members, generator=torch.Generator().manual_seed(1000 * again + label))]
        for place, example in enumerate(own.tolist()):
            found[_fold_of(place, members, count)].append(example)
    return [torch.tensor(fold) for fold in found if fold]


def passes(y: Tensor) -> int:
    """Return how many times all examples are to be left out, each time others together.

    Which examples of different classes are left out together is chance. Where there are few folds, all of them are made
    again with others together, up to ten folds in all: of few examples, which ones are learned from matters much.

    >>> passes(torch.tensor([0, 0, 1, 1])), passes(torch.arange(2).repeat_interleave(7)), passes(torch.rand(5))
    (5, 1, 1)
    """
    return 1 if y.is_floating_point() or y.dim() != 1 else max(1, MOST_FOLDS // max(1, len(folds(y))))


def _fold_of(place: int, members: int, count: int) -> int:
    """Spread the members of a class over the folds: a small class must not be missing from neighbouring ones alone."""
    return place % count if members >= count else round(place * (count - 1) / (members - 1))
