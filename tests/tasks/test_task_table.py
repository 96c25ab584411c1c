from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from rbml import tasks
from rbml.data.examples import Grouped, Labelled
from rbml.data.inputs import Table
from rbml.tasks import TaskDistribution, generator
from rbml.tasks.base import count as number_of

GROUPED = Grouped(
    torch.randn(60, 3, generator=generator(0)),
    torch.randn(60, 1, generator=generator(1)),
    torch.arange(60) % 6,
    list("abcdef"),
    "noise",
    Table(["a", "b", "c"], [0, 0, 0], [1, 1, 1]),
)
PICTURES = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator(2))


def clusters() -> TaskDistribution | None:
    """Tasks of clusters, where scikit-learn is installed."""
    if find_spec("sklearn") is None:
        return None
    pile = Labelled(PICTURES, torch.zeros(40, dtype=torch.int64), ["picture"], "noise")
    return tasks.cactus(pile, ways=2, shots=1, queries=2, clusters=4, partitions=2)


def few_shot(ways: int, shots: int, queries: int) -> tasks.FewShot:
    return tasks.FewShot((torch.randn(60, 3, generator=generator(0)), torch.arange(60) % 6), ways, shots, queries)


MEMBERS: dict[str, TaskDistribution] = {
    "continual": tasks.Continual((torch.randn(60, 3, generator=generator(0)), torch.arange(60) % 6), 3, 2, 2),
    "few_shot": tasks.FewShot((torch.randn(60, 3, generator=generator(0)), torch.arange(60) % 6), queries=4),
    "mixture": tasks.Mixture([few_shot(3, 1, 2), few_shot(4, 2, 3)]),
    "per_group": tasks.PerGroup(GROUPED, shots=2, queries=4),
    "sinusoid": tasks.Sinusoid(),
    "supervised": tasks.Supervised((torch.randn(60, 3, generator=generator(0)), torch.arange(60) % 6), batch=5),
    "umtra": tasks.umtra(PICTURES, augment="shift"),
    "aal": tasks.aal(PICTURES, shots=2, augment="shift"),
} | ({"cactus": found} if (found := clusters()) else {})


def test_every_member_is_tested_here() -> None:
    assert set(MEMBERS) | {"cactus"} == set(tasks.ALL)


@pytest.mark.parametrize("name", sorted(MEMBERS))
def test_equal_generators_give_equal_tasks_whatever_the_count(name: str) -> None:
    whole, again, few = (MEMBERS[name].sample(count, generator(5)) for count in (7, 7, 3))
    assert number_of(whole) == 7 and number_of(few) == 3
    for batch, same, less in zip(whole, again, few, strict=True):
        for leaf, other, first in zip(batch[:2], same[:2], less[:2], strict=True):
            assert torch.equal(leaf, other) and torch.equal(leaf[:3], first)
            assert leaf.is_contiguous() or leaf.stride(-1) == 1
