"""A predictor is the adapted model on raw things, each by itself."""

from __future__ import annotations

import torch

from rbml import algorithms
from rbml.data.inputs import Arrays, Table
from rbml.data.targets import CLASSES, REAL
from rbml.models import MLP
from rbml.predictor import Predictor


def test_classes_of_arrays() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    adapted = algorithms.maml(MLP(4, 3)).adapt(x, y)
    predictor = Predictor(adapted, Arrays(), CLASSES, ["a", "b", "c"])
    records, output = predictor(list(x))
    torch.testing.assert_close(output, adapted(x).detach())
    assert [record["class"] for record in records] == ["abc"[index] for index in output.argmax(1).tolist()]
    assert list(records[0]["probabilities"]) == ["a", "b", "c"]
    assert torch.equal(predictor([x[3]]).output[0], output[3])  # to the bit, whatever else is in the call
    assert predictor([]).records == []


def test_values_of_rows() -> None:
    table = Table(["age", "dose"], [50, 1], [10, 1], ["score"])
    rows = [{"age": 40.0, "dose": 1.0}, {"age": 60.0, "dose": 3.0}]
    adapted = algorithms.maml(MLP(2, 1), loss=REAL.loss).adapt(table.ready(table.read(rows)), torch.zeros(2, 1))
    records, output = Predictor(adapted, table, REAL, ["score"])(rows)
    assert [record["value"] for record in records] == output[:, 0].tolist()
    torch.testing.assert_close(output, adapted(torch.tensor([[-1.0, 0.0], [1.0, 2.0]])).detach())
