"""Stacks of tasks of unequal size: what counts is untouched, and the masks say what that is."""

from __future__ import annotations

import pytest
import torch

from rbml.data.batch import Batch
from rbml.errors import UsageError
from rbml.tasks import Episode, generator, stack
from rbml.tasks.base import one
from rbml.tasks.padding import Sizes


def task(ways: int, shots: int, queries: int, seed: int = 0, tree: bool = False) -> Episode:
    source = generator(seed)

    def batch(each: int) -> Batch:
        x = torch.randn(ways * each, 2, 3, generator=source)
        ids = torch.randint(9, (ways * each, 4), generator=source)
        return Batch({"x": x, "ids": ids} if tree else x, torch.arange(ways).repeat_interleave(each))

    return Episode(batch(shots), batch(queries))


def test_what_counts_stands_first_and_is_untouched() -> None:
    tasks = [task(3, 1, 2, 0), task(2, 2, 1, 1), task(4, 1, 1, 2)]
    whole = stack(tasks)
    assert whole.support.x.shape == (3, 4, 2, 3) and whole.query.y.shape == (3, 6)
    for index, alone in enumerate(tasks):
        for name in ("support", "query"):
            padded, own = getattr(one(whole, index), name), getattr(alone, name)
            n = len(own.y)
            assert torch.equal(padded.x[:n], own.x) and torch.equal(padded.y[:n], own.y)
            assert not padded.x[n:].any() and not padded.y[n:].any()
            assert padded.mask["example"].tolist() == [True] * n + [False] * (len(padded.y) - n)
            ways = int(alone.support.y.max()) + 1
            assert padded.mask["class"].tolist() == [True] * ways + [False] * (4 - ways)


def test_tasks_of_one_size_need_no_mask() -> None:
    whole = stack([task(3, 1, 2, seed) for seed in range(4)])
    assert whole.support.mask == {} and whole.query.mask == {} and whole.tasks == 4
    assert torch.equal(whole.query.x[2], task(3, 1, 2, 2).query.x)


def test_sizes_make_all_stacks_of_one_form() -> None:
    sizes = Sizes(support=8, query=9, classes=5)
    whole = stack([task(3, 1, 2), task(3, 1, 2, 1)], sizes)
    assert whole.support.y.shape == (2, 8) and whole.query.y.shape == (2, 9)
    assert whole.query.mask["class"].shape == (2, 5) and whole.query.mask["example"].sum().item() == 12
    with pytest.raises(UsageError, match=r"support=8, query=12, classes=4.*do not fit into.*query=9"):
        stack([task(4, 2, 3)], sizes)


def test_trees_and_real_values_are_padded_alike() -> None:
    whole = stack([task(3, 1, 2, tree=True), task(2, 1, 1, tree=True)])
    assert whole.support.x["ids"].dtype == torch.int64 and whole.support.x["ids"].shape == (2, 3, 4)
    real = [Episode(*(Batch(torch.ones(n, 1), torch.ones(n, 2)) for n in (k, 3))) for k in (2, 4)]
    masked = stack(real).support
    assert set(masked.mask) == {"example"} and masked.y.sum().item() == 12


def test_a_stack_of_padded_tasks_keeps_their_masks() -> None:
    padded = one(stack([task(3, 1, 2), task(2, 1, 1)]), 1)
    again = stack([padded, task(4, 1, 2)])
    assert again.support.mask["example"].tolist() == [[True, True, False, False], [True] * 4]
    assert again.support.mask["class"].tolist() == [[True, True, False, False], [True] * 4]


def test_what_no_padding_makes_equal_is_refused() -> None:
    other = Episode(*(Batch(torch.zeros(2, 5, 5), torch.tensor([0, 1])) for _ in range(2)))
    with pytest.raises(UsageError, match=r"not x \(2, 3\) float32, y \(\) int64 and x \(5, 5\) float32"):
        stack([task(2, 1, 1), other])
    with pytest.raises(UsageError, match="no task to stack"):
        stack([])
