from __future__ import annotations

import numpy as np
import pytest
import torch

from rbml.data.examples import Labelled
from rbml.data.inputs import Pictures
from rbml.errors import DataError, UsageError
from rbml.tasks import FewShot, few_shot, generator, task_seeds


def numbered(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Examples that carry their own row number, in mixed order, and their labels."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    y = y[torch.randperm(len(y), generator=generator(7))]
    return torch.arange(len(y)), y


def test_shapes_and_labels_in_class_order() -> None:
    tasks = FewShot((torch.zeros(60, 1, 4, 4), torch.arange(60) % 6), ways=3, shots=2, queries=4)
    support, query = tasks.sample(5, generator(0))
    assert support.x.shape == (5, 6, 1, 4, 4) and query.x.shape == (5, 12, 1, 4, 4)
    assert support.y.dtype == torch.int64
    assert support.y.tolist() == [[0, 0, 1, 1, 2, 2]] * 5
    assert query.y.tolist() == [[0] * 4 + [1] * 4 + [2] * 4] * 5


def test_examples_belong_to_the_chosen_classes_and_are_all_different() -> None:
    x, y = numbered([9, 30, 7, 12, 8, 21])
    tasks = FewShot((x, y), ways=4, shots=3, queries=4)
    seeds = task_seeds(50, generator(0))
    support, query = tasks.draw(seeds)
    for task, seed in enumerate(seeds):
        rows = torch.cat([support.x[task], query.x[task]])
        assert len(rows.unique()) == len(rows)
        chosen = tasks.chosen(seed)
        assert len(set(chosen)) == 4
        assert y[support.x[task]].tolist() == [label for label in chosen for _ in range(3)]
        assert y[query.x[task]].tolist() == [label for label in chosen for _ in range(4)]


def test_gathered_pictures_are_those_of_the_source() -> None:
    pictures = torch.randint(256, (40, 1, 5, 5), dtype=torch.uint8, generator=generator(1))
    tasks = FewShot(Labelled(pictures, torch.arange(40) // 10, list("abcd"), ""), ways=2, shots=1, queries=3)
    seeds = task_seeds(6, generator(0))
    support, query = tasks.draw(seeds)
    support_rows, query_rows = tasks.indices(seeds)
    assert support.x.dtype == torch.float32
    assert torch.equal(support.x, pictures[support_rows].float() / 255)
    assert torch.equal(query.x, pictures[query_rows].float() / 255)
    assert (
        float(
            FewShot((torch.full((8, 1), 255, dtype=torch.uint8), torch.arange(8) % 2), 2, 1, 1)
            .sample(1, generator(0))
            .support.x.max()
        )
        == 1.0
    )


def test_a_task_depends_on_its_seed_alone() -> None:
    tasks = FewShot(numbered([20] * 30), ways=5, shots=2, queries=3)
    seeds = task_seeds(8, generator(4))
    whole = tasks.draw(seeds)
    for chunk in ([0], [3, 4, 5], [7, 2]):
        part = tasks.draw([seeds[index] for index in chunk])
        assert torch.equal(part.support.x, whole.support.x[chunk]) and torch.equal(part.query.x, whole.query.x[chunk])
    assert torch.equal(tasks.sample(3, generator(4)).query.x, whole.query.x[:3])
    assert torch.equal(tasks.sample(8, generator(4)).query.x, whole.query.x)
    assert not torch.equal(tasks.sample(8, generator(5)).query.x, whole.query.x)


def test_the_global_generator_is_not_touched() -> None:
    tasks = FewShot(numbered([20] * 5))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    tasks.sample(2, generator(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_classes_and_examples_are_uniform() -> None:
    counts = [6, 10, 8, 6, 12]
    x, y = numbered(counts)
    tasks = FewShot((x, y), ways=2, shots=2, queries=3)
    draws = 6000
    support, query = tasks.draw(task_seeds(draws, generator(11)))
    position = torch.stack([(y[support.x[:, 0]] == label).sum() for label in range(5)]).double()
    chi2 = ((position - draws / 5) ** 2 / (draws / 5)).sum()
    assert chi2 < 18.5  # 4 degrees of freedom, p = 0.001
    for rows, each in ((support.x, 2), (query.x, 3)):
        used = torch.bincount(rows.flatten(), minlength=len(x)).double()
        for label, count in enumerate(counts):
            expected = draws * 2 / 5 * each / count
            ratio = used[y == label] / expected
            assert float((ratio - 1).abs().max()) < 5 / expected**0.5  # five standard deviations


def test_every_order_of_classes_is_equally_likely() -> None:
    tasks = FewShot((torch.zeros(12), torch.arange(12) % 3), ways=3, shots=1, queries=1)
    orders = torch.tensor([tasks.chosen(seed) for seed in task_seeds(3000, generator(2))])
    counts = torch.bincount(orders[:, 0] * 9 + orders[:, 1] * 3 + orders[:, 2]).double()
    counts = counts[counts > 0]
    assert len(counts) == 6 and float(((counts - 500) ** 2 / 500).sum()) < 20.5  # 5 degrees of freedom, p = 0.001


@pytest.mark.parametrize("labels", [["cat", "dog"], [-3, 70], [0.5, 1.5], [True, False]])
def test_labels_of_any_kind(labels: list[object]) -> None:
    y = np.array(labels * 5)
    x = np.arange(10, dtype=np.float64)[:, None]
    tasks = FewShot((x, y), ways=2, shots=2, queries=3)
    assert tasks.names == sorted(str(label) for label in labels)
    seed = 5
    support, _ = tasks.draw([seed])
    assert support.x.dtype == torch.float64
    for row, label in zip(support.x[0, :, 0].long().tolist(), support.y[0].tolist(), strict=True):
        assert str(y[row]) == tasks.names[tasks.chosen(seed)[label]]


def test_whole_numbers_stay_whole() -> None:
    tokens = torch.randint(1000, (20, 6), generator=generator(0))
    assert FewShot((tokens, torch.arange(20) % 2), 2, 1, 1).sample(1, generator(0)).support.x.dtype == torch.int64


def test_all_examples_of_a_class_can_be_used() -> None:
    x, y = numbered([4, 4])
    support, query = FewShot((x, y), ways=2, shots=1, queries=3).sample(1, generator(0))
    assert sorted(torch.cat([support.x, query.x], 1)[0].tolist()) == list(range(8))


@pytest.mark.parametrize("name", ["ways", "shots", "queries"])
@pytest.mark.parametrize("number", [0, -1])
def test_numbers_must_be_positive(name: str, number: int) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1, not {number}"):
        FewShot(numbered([20] * 5), **{name: number})


def test_more_ways_than_classes() -> None:
    with pytest.raises(UsageError, match="6 ways need 6 classes, but the data has 5"):
        FewShot(numbered([20] * 5), ways=6)


def test_a_class_with_too_few_examples_is_named() -> None:
    x, y = numbered([20, 3, 20, 4])
    with pytest.raises(DataError, match=r"class 'b' has 3 examples, but 2 shots and 3 queries need 5 \(and 1 more"):
        FewShot(Labelled(x, y, list("abcd"), ""), ways=2, shots=2, queries=3)


def test_arrays_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"x\.shape.*\(10,\).*y\.shape.*\(9,\)"):
        FewShot((torch.zeros(10), torch.zeros(9)))
    with pytest.raises(UsageError, match=r"2 class names need labels in 0 \.\. 1, but they run from 0 to 2"):
        FewShot(Labelled(torch.zeros(3), torch.arange(3), ["a", "b"], ""), ways=2, shots=1, queries=1)
    with pytest.raises(UsageError, match="data has 0"):
        FewShot((torch.zeros(0, 4), torch.zeros(0)))
    with pytest.raises(UsageError, match="numbers"):
        FewShot((np.array(["a", "b"]), np.array([0, 1])))
    with pytest.raises(UsageError, match="count must be at least 1"):
        FewShot(numbered([20] * 5)).sample(0, generator(0))


def test_repr_and_device() -> None:
    tasks = FewShot(numbered([20] * 7), ways=5, shots=1, queries=2)
    assert repr(tasks) == "FewShot(5 of 7 classes, shots=1, queries=2)"
    there = tasks.to("meta").sample(2, generator(0))
    assert there.support.x.device.type == there.query.y.device.type == "meta"
    assert tasks.x.device.type == "cpu"


def labelled(counts: list[int]) -> Labelled:
    """Small square pictures in colour, all different."""
    y = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    x = torch.randint(256, (len(y), 3, 5, 5), dtype=torch.uint8, generator=generator(3))
    return Labelled(x, y, [f"class {place}" for place in range(len(counts))], "noise", Pictures(5, 3), ("flip",))


def test_turned_classes_are_classes_of_their_own() -> None:
    data = labelled([6] * 3)
    tasks = FewShot(data, ways=10, shots=2, queries=3, rotate_classes=True)
    assert len(tasks.names) == 12 and tasks.names[3] == "class 0 turned by 90 degrees"
    seeds = task_seeds(4, generator(0))
    episodes, rows = tasks.stored(seeds), tasks.indices(seeds)
    for task, seed in enumerate(seeds):
        assert len(set(tasks.chosen(seed))) == 10
        for part, places in zip(episodes, rows, strict=True):
            chosen = torch.tensor(tasks.chosen(seed))[part.y[task]]
            assert torch.equal(data.y[places[task]], chosen % 3)
            true = [
                picture.rot90(turn // 3, (-2, -1))
                for picture, turn in zip(data.x[places[task]], chosen.tolist(), strict=True)
            ]
            assert torch.equal(part.x[task], torch.stack(true))


def test_classes_turned_at_random_are_turned_alike_in_support_and_queries() -> None:
    data = labelled([6] * 4)
    plain, changed = FewShot(data, 3, 2, 3), FewShot(data, 3, 2, 3, turn_classes=True)
    seeds, found = list(range(40)), set()
    (support, query), (support_, query_) = plain.stored(seeds), changed.stored(seeds)
    for task in seeds:
        for one in range(3):
            turns = []
            for x, y in ((support.x, support_.x), (query.x, query_.x)):
                size = x.shape[1] // 3
                own, turned = (part[task, one * size : (one + 1) * size] for part in (x, y))
                turns.append({turn for turn in range(4) if torch.equal(own.rot90(turn, (-2, -1)), turned)})
            assert turns[0] & turns[1]
            found |= turns[0] & turns[1]
    assert found == {0, 1, 2, 3}
    assert torch.equal(changed.stored([7]).query.x[0], query_.x[7])


def test_tasks_within_a_family_have_its_classes_only() -> None:
    names = ["A/1", "B/1", "A/2", "B/2", "B/3", "C/1"]
    x = torch.arange(6.0).repeat_interleave(4)[:, None]
    tasks = FewShot(Labelled(x, x[:, 0].long(), names, ""), 2, 1, 2, within=True)
    drawn = tasks.draw(range(60))
    families = [{names[int(one)][0] for one in task} for task in drawn.query.x.unique(dim=1)[..., 0]]
    assert {frozenset(one) for one in families} == {frozenset("A"), frozenset("B")}
    assert all(names[place][0] in families[seed] for seed in range(60) for place in tasks.chosen(seed))
    with pytest.raises(UsageError, match="largest one has 3 classes"):
        FewShot(Labelled(x, x[:, 0].long(), names, ""), 4, 1, 2, within=True)
    with pytest.raises(UsageError, match="Greek/character01"):
        FewShot((x, x[:, 0].long()), 2, 1, 2, within=True)


def test_mixed_classes_lie_between_two_classes() -> None:
    x = torch.arange(4.0).repeat_interleave(8)[:, None]  # examples that carry their class
    tasks = FewShot((x, x[:, 0].long()), ways=3, shots=1, queries=2, mix_classes=1.0)
    drawn = tasks.draw(range(40))
    one = drawn.query.x.view(40, 3, 2)
    assert torch.equal(one[..., 0], one[..., 1]) and torch.equal(
        one[..., 0], drawn.support.x[..., 0]
    )  # all with one share
    assert (one % 1 > 0).double().mean() > 0.5
    assert torch.equal(tasks.draw([7]).query.x[0], drawn.query.x[7])
    rarely = FewShot((x, x[:, 0].long()), 3, 1, 2, mix_classes=0.2).draw(range(200)).query.x
    assert 0.08 < (rarely % 1 > 0).double().mean() < 0.2  # one partner in four is the class itself


def test_augmented_tasks_are_those_tasks_with_changed_pictures() -> None:
    data = labelled([6] * 4)
    plain, changed = FewShot(data, 3, 2, 3), FewShot(data, 3, 2, 3, augment="auto")
    for part, other in zip(plain.stored([1, 2]), changed.stored([1, 2]), strict=True):
        mirrored = (part.x.flip(-1) == other.x).flatten(2).all(2)
        assert bool((mirrored | (part.x == other.x).flatten(2).all(2)).all()) and mirrored.any() and not mirrored.all()
    assert torch.equal(changed.draw([2]).query.x[0], changed.draw([1, 2]).query.x[1])


def test_new_classes_of_what_has_no_such_form_are_refused() -> None:
    arrays = (torch.zeros(20, 3, dtype=torch.int64), torch.arange(20) % 5)
    with pytest.raises(UsageError, match="square pictures"):
        FewShot(arrays, 2, 1, 1, rotate_classes=True)
    with pytest.raises(UsageError, match="mixed classes need"):
        FewShot(arrays, 2, 1, 1, mix_classes=0.5)
    with pytest.raises(UsageError, match="probability"):
        FewShot(arrays, 2, 1, 1, mix_classes=1.5)
    with pytest.raises(UsageError, match="needs pictures"):
        FewShot(arrays, 2, 1, 1, augment="flip")


def test_examples_of_large_classes_are_all_different_and_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_shot, "_LARGE", 5)
    counts = (6, 9)
    tasks = FewShot((torch.arange(15), torch.tensor([0] * 6 + [1] * 9)), ways=2, shots=2, queries=4)
    support, query = tasks.indices(range(3000))
    rows = torch.cat([support.view(-1, 2, 2), query.view(-1, 2, 4)], 2)
    assert all(len(set(some.tolist())) == 6 for some in rows.flatten(0, 1))
    for label, (first, last) in enumerate(((0, 6), (6, 15))):
        own = rows[(rows >= first) & (rows < last)].view(-1, 6)
        assert len(own) == 3000
        for place in range(6):  # every place of a task has every example equally often
            seen = torch.bincount(own[:, place] - first, minlength=counts[label]).double() / 3000
            assert (seen - 1 / counts[label]).abs().max() < 0.03
        pairs = torch.bincount((own[:, 0] - first) * counts[label] + own[:, 1] - first).double() / 3000
        assert (pairs[pairs > 0] - 1 / (counts[label] * (counts[label] - 1))).abs().max() < 0.015


def test_drawing_from_a_large_class_costs_what_the_task_holds() -> None:
    tasks = FewShot((torch.zeros(2_000_000, dtype=torch.uint8), torch.arange(2_000_000) % 2), 2, 1, 5)
    assert tasks._random([1])[1].shape == (1, 2, 6)
    support, query = tasks.indices([1, 2])
    assert int(torch.cat([support, query], 1).max()) > 1_000_000
