from __future__ import annotations

import pytest
import torch

from rbml.data.examples import Grouped
from rbml.data.inputs import Table
from rbml.data.targets import REAL, real
from rbml.errors import DataError, UsageError
from rbml.tasks import PerGroup, generator

SIZES = (6, 9, 7)


def grouped(ordered: bool = True) -> Grouped:
    """Three groups whose rows lie mixed up; y is the row, and x says (group, time)."""
    groups = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))[torch.randperm(22, generator=generator(1))]
    order = torch.randperm(22, generator=generator(2)).double()
    x = torch.stack([groups.double(), order], 1)
    y = torch.arange(22.0)[:, None]
    table = Table(["group", "time"], [0, 0], [1, 1])
    return Grouped(x, y, groups, ["a", "b", "c"], "test", table, order if ordered else None)


@pytest.mark.parametrize("order", ["random", "time"])
def test_a_task_is_one_group_without_repeats(order: str) -> None:
    data = grouped()
    tasks = PerGroup(data, shots=2, queries=4, order=order)  # type: ignore[arg-type]
    seeds = list(range(40))
    episodes = tasks.draw(seeds)
    seen = set()
    for task, seed in enumerate(seeds):
        rows = torch.cat([batch.y[task, :, 0] for batch in episodes]).long()
        assert len(set(rows.tolist())) == 6
        assert set(data.groups[rows].tolist()) == {tasks.chosen(seed)}
        x = torch.cat([batch.x[task] for batch in episodes])
        assert torch.equal(x, data.modality.ready(data.x[rows]))  # type: ignore[index]
        seen.add(tasks.chosen(seed))
    assert seen == {0, 1, 2} and tasks.outputs == 1 and tasks.target is REAL


def test_in_order_of_time_the_support_is_the_beginning() -> None:
    data = grouped()
    tasks = PerGroup(data, shots=3, queries=3, order="time")
    assert data.order is not None
    queries = set()
    for group in range(3):
        times = data.order[data.groups == group].sort().values
        episodes = tasks.draw_of(group, [5, 6, 7, 8])
        assert torch.equal(episodes.support.x[..., 1].double(), times[:3].expand(4, 3))
        assert bool((episodes.query.x[..., 1] > times[2]).all())
        queries |= set(episodes.query.y.flatten().tolist())
    assert len(queries) > 9, "which later ones are asked is drawn"


@pytest.mark.parametrize("order", ["random", "time"])
def test_a_task_depends_on_its_own_seed_alone(order: str) -> None:
    tasks = PerGroup(grouped(), shots=2, queries=3, order=order)  # type: ignore[arg-type]
    whole, alone = tasks.draw([3, 4, 5]), tasks.draw([4])
    for one, other in zip(whole, alone, strict=True):
        assert torch.equal(one.x[1], other.x[0]) and torch.equal(one.y[1], other.y[0])
    again = tasks.draw_of(tasks.chosen(4), [4])
    assert torch.equal(again.query.y, alone.query.y)


def test_settings_that_cannot_be_met() -> None:
    with pytest.raises(DataError, match="group 'a' has 6 rows, but 4 shots and 3 queries need 7"):
        PerGroup(grouped(), shots=4, queries=3)
    with pytest.raises(UsageError, match="shots must be at least 1"):
        PerGroup(grouped(), shots=0)
    with pytest.raises(UsageError, match="no order"):
        PerGroup(grouped(ordered=False), shots=1, queries=1, order="time")
    with pytest.raises(UsageError, match="did you mean 'time'"):
        PerGroup(grouped(), shots=1, queries=1, order="tim")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"group must be 0 \.\. 2"):
        PerGroup(grouped(), shots=1, queries=1).draw_of(3, [0])
    with pytest.raises(UsageError, match="at least 1"):
        PerGroup(grouped(), shots=1, queries=1).draw([])


def test_targets_are_as_a_model_learns_them() -> None:
    data = grouped()._replace(target=real([10.0], [2.0]))
    tasks, plain = PerGroup(data, shots=2, queries=3), PerGroup(grouped(), shots=2, queries=3)
    for ours, theirs in zip(tasks.draw([0, 1]), plain.draw([0, 1]), strict=True):
        assert torch.equal(ours.y, (theirs.y - 10) / 2) and torch.equal(ours.x, theirs.x)
        assert torch.allclose(data.target.unscaled(ours.y), theirs.y)
    assert torch.equal(tasks.stored([0]).query.y, tasks.draw([0]).query.y)


def test_a_learner_of_another_table_has_its_units() -> None:
    """The mean and deviation that inputs and targets are standardised by are those of the learner's training rows."""
    tasks = PerGroup(grouped()._replace(target=real([10.0], [2.0])), shots=2, queries=3)
    known, target = Table(["group", "time"], [1, 5], [2, 3]), real([11.0], [4.0])
    there = tasks.read_as(known, target)
    assert (there.modality, there.target) == (known, target) and there.outputs == 1
    rows = tasks.stored([7]).query
    seen = there.draw([7]).query
    assert torch.equal(seen.x, known.ready(rows.x))
    assert torch.allclose(target.unscaled(seen.y), tasks.target.unscaled(rows.y))
    with pytest.raises(UsageError, match=r"takes table time, group, but these examples \(test\) are table group, time"):
        tasks.read_as(Table(["time", "group"], [0, 0], [1, 1]), target)
    with pytest.raises(UsageError, match="2 targets"):
        tasks.read_as(known, real([0.0, 1.0], [1.0, 1.0]))


def test_targets_of_training_tasks_are_shifted_and_stretched() -> None:
    """Every task is changed by a line of its own, y -> a + b * y: the same for support and queries."""
    plain = PerGroup(grouped(), shots=2, queries=3)
    changed = PerGroup(grouped(), shots=2, queries=3, shift=3.0, stretch=0.5)
    seeds = list(range(400))
    before, after = (torch.cat([part.y for part in tasks.draw(seeds)], 1)[..., 0] for tasks in (plain, changed))
    level = before[:, :2].mean(1, keepdim=True)
    factor = (after[:, 2:3] - after[:, 3:4]) / (before[:, 2:3] - before[:, 3:4])
    moved = after[:, :1] - level - factor * (before[:, :1] - level)
    assert torch.allclose(after, level + moved + factor * (before - level), atol=1e-3)
    assert abs(float(factor.mean()) - 1) < 0.08 and abs(float(factor.std()) - 0.5) < 0.06
    assert abs(float(moved.mean())) < 0.5 and abs(float(moved.std()) - 3) < 0.4
    assert torch.equal(changed.draw([7]).query.y[0], changed.draw([6, 7]).query.y[1]), "by the task's own seed"
    assert torch.equal(changed.draw([7]).query.x, plain.draw([7]).query.x)
    again = changed.read_as(changed.modality, changed.target)
    assert torch.equal(again.draw([7]).query.y, changed.draw([7]).query.y)
    assert PerGroup.training_only == ("shift", "stretch")
    with pytest.raises(UsageError, match="shift must be a number from 0 on, not -1"):
        PerGroup(grouped(), shift=-1)
    with pytest.raises(UsageError, match="stretch must be a number from 0 on, not nan"):
        PerGroup(grouped(), stretch=float("nan"))
