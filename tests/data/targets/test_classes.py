"""Classes: the baselines and the records, beside plain loops."""

from __future__ import annotations

import pytest
import torch

from rbml.data.batch import Batch
from rbml.data.targets import CLASSES
from rbml.data.targets.classes import decode, read
from rbml.errors import DataError, UsageError
from rbml.tasks import generator


def batch(n: int, seed: int) -> Batch:
    source = generator(seed)
    x = torch.randn(n, 2, 3, generator=source, dtype=torch.float64)
    return Batch(x, torch.randint(3, (n,), generator=source))


def test_baselines_are_plain_loops() -> None:
    support, query = batch(20, 0), batch(9, 1)
    x, new = support.x.flatten(1), query.x.flatten(1)
    for name in ("nearest centroid", "nearest neighbour"):
        logits = CLASSES.baselines[name](support, query)
        for index, one in enumerate(new):
            for label in range(3):
                own = x[support.y == label]
                near = ((own.mean(0) if "centroid" in name else own) - one).square().sum(-1).min()
                assert logits[index, label].item() == pytest.approx(-near.item(), abs=1e-9)


def test_a_class_without_examples_is_never_predicted() -> None:
    support, query = batch(20, 0), batch(9, 1)
    kept = support.y != 1
    for baseline in CLASSES.baselines.values():
        predicted = baseline(Batch(support.x[kept], support.y[kept]), query).argmax(1)
        assert set(predicted.tolist()) <= {0, 2}


def test_classes_that_a_task_does_not_have_cannot_be_chosen() -> None:
    logits, y = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([1])
    present = torch.tensor([True, True, False])
    (metric,) = CLASSES.metrics
    assert metric.of(logits, Batch(y, y, {"class": present})).item() == 1
    assert metric.of(logits, Batch(y, y)).item() == 0


def test_labels_of_any_kind() -> None:
    assert read([3, 1, 3])[1] == ["1", "3"]
    y, names = read(["x", "y"], ["y", "x", "z"])
    assert y.tolist() == [1, 0] and names == ["y", "x", "z"]
    with pytest.raises(DataError, match="'q' is not one of the classes: y, x"):
        read(["q"], ["y", "x"])


def test_records_hold_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0]])
    (record,) = decode(logits, ["a", "b"])
    chances = logits.softmax(1)[0].tolist()
    assert record["class"] == "b" and record["probability"] == pytest.approx(chances[1])
    assert record["probabilities"] == pytest.approx({"a": chances[0], "b": chances[1]})
    with pytest.raises(UsageError, match="3 classes need 3 outputs"):
        decode(logits, ["a", "b", "c"])
