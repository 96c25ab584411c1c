"""Streams of classes: their order, their labels, what is to be remembered, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

from rbml import models
from rbml.algorithms import anil
from rbml.errors import UsageError
from rbml.tasks import Continual, FewShot, Mixture, generator

ARRAYS = (torch.arange(120.0)[:, None], torch.arange(120) // 10)  # twelve classes of ten


def test_classes_come_one_after_another_and_every_example_once() -> None:
    source = Continual(ARRAYS, ways=4, shots=3, queries=2, batch=2)
    stream = source.draw([5, 6])
    assert source.steps == 6 and stream.steps.x.shape == (2, 6, 2, 1) and stream.query.x.shape == (2, 8, 1)
    for row, seed in enumerate((5, 6)):
        seen, asked = stream.steps.x[row].flatten().long(), stream.query.x[row].flatten().long()
        assert (seen // 10).tolist() == [name for name in source.chosen(seed) for _ in range(3)]
        assert len({*seen.tolist(), *asked.tolist()}) == 20, "no example comes twice"
        assert stream.steps.y[row].flatten().tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert stream.query.y[row].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_global_labels_are_the_numbers_of_the_data_and_others_are_remembered() -> None:
    source = Continual(ARRAYS, ways=3, shots=4, queries=2, batch=4, remember=5, labels="global")
    stream = source.draw([3])
    assert source.outputs == source.ways == 12
    assert torch.equal(stream.steps.y, stream.steps.x[..., 0].long() // 10)
    assert torch.equal(stream.query.y, stream.query.x[..., 0].long() // 10)
    inside = set(source.chosen(3))
    assert set(stream.query.y[0, :6].tolist()) == inside
    others = stream.query.y[0, 6:].tolist()
    assert len(set(others)) == 5 and not set(others) & inside


def test_a_stream_depends_on_its_seed_alone() -> None:
    source = Continual(ARRAYS, ways=3, shots=2, queries=2, remember=2, labels="global")
    whole, alone = source.draw([4, 9, 2]), source.draw([9])
    assert all(torch.equal(a[1:2], b) for a, b in zip(tree_leaves(whole), tree_leaves(alone), strict=True))
    again = source.sample(2, generator(1))
    assert all(
        torch.equal(a, b[:2])
        for a, b in zip(tree_leaves(again), tree_leaves(source.sample(3, generator(1))), strict=True)
    )


def test_pictures_are_made_ready_as_in_other_tasks() -> None:
    x = torch.randint(256, (40, 1, 6, 6), dtype=torch.uint8, generator=generator(0))
    arrays = (x, torch.arange(40) // 10)
    stream, episode = (
        Continual(arrays, ways=2, shots=3, queries=2, batch=3).draw([1]),
        FewShot(arrays, 2, 3, 2).draw([1]),
    )
    assert torch.equal(stream.steps.x.flatten(1, 2), episode.support.x) and torch.equal(stream.query.x, episode.query.x)


def test_streams_are_not_mixed_into_tasks_without_order() -> None:
    source = Continual(ARRAYS, ways=3, shots=2, queries=2)
    with pytest.raises(UsageError, match="streams cannot be padded to one size, because their order counts"):
        Mixture([source, Continual(ARRAYS, ways=4, shots=2, queries=2)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 4}, "batch=4 does not divide a stream of 3 classes x 2 shots = 6 examples"),
        ({"remember": 2}, 'remember=2 asks for classes that are not in the stream.*labels="global"'),
        ({"remember": 10, "labels": "global"}, "13 ways need 13 classes, but the data has 12"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"labels": "mine"}, "mine"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Continual(ARRAYS, ways=3, shots=2, queries=2, **options)  # type: ignore[arg-type]


def test_a_learner_of_another_length_is_told_both_lengths() -> None:
    stream = Continual(ARRAYS, ways=3, shots=2, queries=2).draw([0])
    with pytest.raises(UsageError, match="data for 6 inner steps, and the learner takes 5: give it steps=6"):
        anil(models.MLP(1, 3, (4,)), steps=5).meta_gradient(stream)
