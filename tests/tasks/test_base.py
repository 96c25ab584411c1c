"""Tasks by step: pure in t, a stack of them is each of them, and a job takes every example once per epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, func
from torch.utils._pytree import tree_leaves, tree_map

from rbml import Batch, Episode, Job, Stream
from rbml.tasks.base import at_step, count, moved, one, part


def batch(*lead: int, mask: bool = False) -> Batch:
    x = {"a": torch.randn(*lead, 3), "b": torch.randint(5, (*lead, 2))}
    counts = {"example": torch.rand(*lead) > 0.3, "class": torch.ones(lead[0], 4, dtype=torch.bool)} if mask else {}
    return Batch(x, torch.randint(4, lead), counts)


def jobs() -> Job:
    return Job.of(Batch(torch.arange(20.0).reshape(10, 2), torch.arange(10)), batch(4), 3, [5, 6])


TASKS: dict[str, Any] = {
    "episode": lambda: Episode(batch(2, 5, mask=True), batch(2, 4)),
    "stream": lambda: Stream(batch(2, 7, 3, mask=True), batch(2, 4)),
    "job": jobs,
}


@pytest.mark.parametrize("kind", TASKS)
def test_a_step_is_the_same_whenever_and_however_it_is_asked_for(kind: str) -> None:
    tasks = TASKS[kind]()
    task = one(tasks, 1)
    first = [task.at(t) for t in range(6)]
    for t in (5, 0, 3, 3):
        for number in (t, torch.tensor(t)):
            again = task.at(number)
            assert all(torch.equal(a, b) for a, b in zip(tree_leaves(first[t]), tree_leaves(again), strict=True))
        stacked = func.vmap(lambda each, t=t: each.at(torch.tensor(t)))(tasks)
        assert all(torch.equal(a[1], b) for a, b in zip(tree_leaves(stacked), tree_leaves(first[t]), strict=True))


@pytest.mark.parametrize("kind", TASKS)
def test_stacks_are_counted_cut_and_moved(kind: str) -> None:
    tasks = TASKS[kind]()
    assert count(tasks) == 2 and count(part(tasks, 1, 2)) == 1
    wide = moved(tasks, torch.float64)
    assert {leaf.dtype for leaf in tree_leaves(wide) if leaf.is_floating_point()} == {torch.float64}
    whole = one(tasks, 0).support
    assert whole.y.dim() == 1 and len(whole.y) == {"episode": 5, "stream": 21, "job": 10}[kind]


def test_an_epoch_of_a_job_is_a_permutation_and_every_epoch_another() -> None:
    job, other = (one(stack, index) for stack in [jobs()] for index in range(2))
    epochs = [torch.cat([job.rows(t) for t in range(3 * e, 3 * e + 3)]) for e in range(3)]
    assert all(len(set(epoch.tolist())) == 9 for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 3
    assert not torch.equal(torch.cat([other.rows(t) for t in range(3)]), epochs[0])
    assert job.examples.x.data_ptr() == other.examples.x.data_ptr(), "jobs on the same examples share their memory"


def test_a_row_by_a_tensor_is_a_row_by_its_number() -> None:
    leaf = torch.randn(4, 2)
    for t in range(4):
        assert torch.equal(at_step(leaf, t), at_step(leaf, torch.tensor(t)))
    rows: Tensor = func.vmap(lambda own: at_step(own, torch.tensor(2)))(leaf[None].expand(3, 4, 2))
    assert torch.equal(rows, leaf[2].expand(3, 2))
    assert tree_map(len, [leaf]) == [4]
