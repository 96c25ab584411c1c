from __future__ import annotations

import pytest
import torch

from rbml.data.inputs import Arrays
from rbml.errors import DataError, UsageError


def test_bytes_become_shares_and_the_rest_stays() -> None:
    assert Arrays().ready(torch.tensor([[0, 255]], dtype=torch.uint8)).tolist() == [[0.0, 1.0]]
    for leaf in (torch.tensor([7]), torch.tensor([0.5], dtype=torch.float64), torch.tensor([True])):
        assert torch.equal(Arrays().ready(leaf), leaf)
    tree = Arrays().ready({"ids": torch.tensor([3]), "picture": torch.tensor([255], dtype=torch.uint8)})
    assert tree["ids"].tolist() == [3] and tree["picture"].tolist() == [1.0]


def test_what_has_the_shape_of_pictures_is_shown_as_pictures() -> None:
    assert Arrays().show(torch.zeros(2, 1, 4, 5)).values[0].shape == (4, 5)
    assert Arrays().show(torch.zeros(2, 3, 4, 5)).values[0].shape == (4, 5, 3)
    shown = Arrays().show({"a": torch.tensor([[1.0], [2.0]]), "b": torch.tensor([3, 4])})
    assert shown.kind == "table" and shown.values == [{"a 0": 1.0, "b 0": 3}, {"a 0": 2.0, "b 0": 4}]


def test_what_is_no_array_is_refused() -> None:
    with pytest.raises(DataError, match=r"one shape, not \(1,\) and \(2,\)"):
        Arrays().read([[1.0], [1.0, 2.0]])
    with pytest.raises(DataError, match="must hold numbers"):
        Arrays().read([["a"]])
    with pytest.raises(UsageError, match=r"learner\.adapt\(x, y\)"):
        Arrays().find(["x"], labelled=True)
