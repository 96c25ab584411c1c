"""Jobs whose order is drawn before their steps are taken."""

from __future__ import annotations

import torch
from torch import func
from torch.utils._pytree import tree_leaves

from rbml import Batch, Job
from rbml.tasks.base import one
from rbml.tasks.jobs import OrderedJob, jobs_in, with_orders


def jobs() -> Job:
    x, y = torch.randn(10, 4), torch.randint(3, (10,))
    return Job.of(Batch(x, y), Batch(x[:2], y[:2]), 3, [5, 6])


def test_an_ordered_job_sees_what_the_job_sees() -> None:
    stack = {"task": jobs(), "key": torch.arange(2)}
    assert len(jobs_in(stack)) == 1 and not jobs_in(stack["key"])
    ordered = with_orders(stack, 1, 2)  # steps 3 to 8
    assert isinstance(ordered["task"], OrderedJob) and torch.equal(ordered["key"], stack["key"])
    for t in range(3, 9):
        for index in range(2):
            job, other = one(stack["task"], index), one(ordered["task"], index)
            found, truth = other.at(torch.tensor(t)), job.at(t)
            assert all(torch.equal(a, b) for a, b in zip(tree_leaves(found), tree_leaves(truth), strict=True))
            assert torch.equal(other.support.x, job.support.x) and torch.equal(other.query.y, job.query.y)
            assert other.available() is None
        together = func.vmap(lambda each, t=t: each.at(torch.tensor(t)))(ordered["task"])
        assert torch.equal(together.x[1], one(stack["task"], 1).at(t).x)
