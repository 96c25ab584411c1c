"""Data sets of PyTorch as arrays: what is read is what is there, and what cannot be read is named."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from rbml import algorithms, models
from rbml.data.datasets import read_dataset
from rbml.errors import DataError, UsageError
from rbml.tasks import FewShot, generator


class Listed(Dataset[Any]):
    """The examples of a list; it counts how often it is asked."""

    def __init__(self, items: list[Any], **facts: Any) -> None:
        self.items, self.asked = items, 0
        self.__dict__.update(facts)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        return self.items[index]


x = torch.randn(24, 4, generator=generator(0))
WORDS = ["oak", "ash", "elm"] * 8


def test_tasks_are_those_of_the_same_arrays() -> None:
    own = FewShot((x, WORDS), ways=2, shots=2, queries=3)
    for dataset in (
        Listed(list(zip(x, WORDS, strict=True))),
        Listed([(row.numpy(), np.str_(word)) for row, word in zip(x, WORDS, strict=True)]),
        Listed([(row, ["elm", "oak", "ash"].index(w)) for row, w in zip(x, WORDS, strict=True)],
               classes=["elm", "oak", "ash"]),
    ):  # fmt: skip
        tasks = FewShot(dataset, ways=2, shots=2, queries=3)
        assert dataset.asked == 24, "each example once"
        assert tasks.names == ["ash", "elm", "oak"] and tasks.about == "3 classes of the user's data set Listed"
        for ours, theirs in zip(tasks.draw([5, 6]), own.draw([5, 6]), strict=True):
            assert torch.equal(ours.x, theirs.x) and torch.equal(ours.y, theirs.y)
        assert dataset.asked == 24


def test_data_sets_of_pytorch_itself() -> None:
    y = torch.arange(24) % 3
    whole = FewShot(TensorDataset(x, y), ways=2, shots=2, queries=3)
    assert whole.names == ["0", "1", "2"] and torch.equal(whole.x, x)
    part = FewShot(Subset(TensorDataset(x, y), list(range(12, 24))), ways=2, shots=1, queries=3)
    assert torch.equal(part.x, x[12:])


def test_a_tree_of_inputs_is_learned_from() -> None:
    items = [({"x": row}, word) for row, word in zip(x, WORDS, strict=True)]
    tasks = FewShot(Listed(items), ways=3, shots=2, queries=3)
    found = algorithms.maml(models.MLP(4, 3, (5,))).meta_gradient(tasks.sample(2, generator(0)))
    assert found.loss.isfinite()


@pytest.mark.parametrize(("mode", "shape"), [("L", (1, 5, 7)), ("RGB", (3, 5, 7))])
def test_pictures_become_channels_first(mode: str, shape: tuple[int, ...]) -> None:
    values = torch.randint(256, (4, *shape), dtype=torch.uint8, generator=generator(1))
    pictures = [Image.fromarray(v[0].numpy() if mode == "L" else v.movedim(0, -1).numpy()) for v in values]
    read, labels = read_dataset(Listed(list(zip(pictures, [0, 0, 1, 1], strict=True))))
    assert isinstance(read, torch.Tensor) and torch.equal(read, values) and labels == [0, 0, 1, 1]
    drawn = FewShot(Listed(list(zip(pictures, [0, 0, 1, 1], strict=True))), ways=2, shots=1, queries=1).draw([0])
    assert drawn.support.x.dtype == torch.float32 and float(drawn.support.x.max()) <= 1


class Endless(IterableDataset[Any]):
    """No length, no numbers."""

    def __iter__(self) -> Any:
        return iter(())


class Broken(Listed):
    """An example that cannot be read."""

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise OSError("disk")
        return super().__getitem__(index)


pair = (torch.zeros(3), 0)
WRONG: list[tuple[Any, type[Exception], str]] = [
    (DataLoader(Listed([pair])), UsageError, "not DataLoader; of a DataLoader give its dataset"),
    (Endless(), UsageError, "not Endless"),
    (Listed([(torch.zeros(3), [1])]), UsageError, "the label of example 0 is a list"),
    (Listed([]), UsageError, "the data set Listed has no examples"),
    (Listed([pair, {"image": 1, "label": 2}]), UsageError, "example 1 of the data set is a dict of 2: expected a pair"),
    (Listed([torch.zeros(3)]), UsageError, "example 0 of the data set is a Tensor: expected a pair"),
    (
        Listed([pair, (torch.zeros(4), 0)]),
        DataError,
        "example 1 of the data set is (4,) of torch.float32, but example 0",
    ),
    (Listed([pair, (torch.zeros(3).int(), 0)]), DataError, "example 1 of the data set is (3,) of torch.int32"),
    (Broken([pair] * 4), DataError, "example 2 of the data set cannot be read: OSError('disk')"),
    (Listed([("some text", 0)]), UsageError, "the input of example 0 is a str, which is no array of numbers"),
    (Listed([(torch.zeros(3), torch.zeros(2))]), UsageError, "the label of example 0 has the shape (2,)"),
    (Listed([(torch.zeros(3), 0.5)]), UsageError, "the label of example 0 is 0.5: these are real values"),
]


@pytest.mark.parametrize(("dataset", "kind", "message"), WRONG)
def test_what_cannot_be_used_is_named(dataset: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        FewShot(dataset, ways=2)
