"""Trees become lists in the order of PyTorch's own function, and get their form back."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_structure

from rbml import Batch, Episodes
from rbml.autodiff.flat import flattened, form_of

x, y = torch.zeros(2), torch.ones(3)


@pytest.mark.parametrize(
    "tree",
    [
        x,
        {"b": x, "a": y},
        (x, [y, {"c": x}], ()),
        Episodes(Batch(x, y), Batch({"ids": y}, x, {"example": y})),
        OrderedDict(b=x, a={"d": (y,)}),
        torch.nn.Parameter(x),
    ],
)
def test_there_and_back(tree: Any) -> None:
    leaves = flattened(tree)
    assert all(a is b for a, b in zip(leaves, tree_leaves(tree), strict=True))
    form = form_of(tree_structure(tree))
    for _ in range(2):
        again = form(iter(leaves))
        assert type(again) is type(tree) and tree_structure(again) == tree_structure(tree)
        assert all(a is b for a, b in zip(tree_leaves(again), leaves, strict=True))
