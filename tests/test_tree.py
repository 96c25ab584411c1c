from __future__ import annotations

import torch

from rbml import tree


def test_arithmetic() -> None:
    one, two = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}, {"b": torch.tensor(5.0), "c": torch.tensor(7.0)}
    total = tree.add(one, two)
    assert list(total) == ["a", "b", "c"] and [leaf.tolist() for leaf in total.values()] == [[1, 2], 8, 7]
    assert [leaf.tolist() for leaf in one.values()] == [[1, 2], 3], "nothing is changed in place"
    assert [leaf.tolist() for leaf in tree.scale(one, -2).values()] == [[-2, -4], -6]
    assert [leaf.tolist() for leaf in tree.zeros_like(one).values()] == [[0, 0], 0]
    assert float(tree.dot(one, {"b": torch.tensor(2.0), "a": torch.tensor([10.0, 100.0])})) == 216
    assert float(tree.norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])})) == 5
    doubled = tree.tmap(lambda x, y: x + 2 * y, one, one)
    assert [leaf.tolist() for leaf in doubled.values()] == [[3, 6], 9]


def test_names() -> None:
    leaves = {name: torch.zeros(()) for name in ("model.a", "model.b.c", "phi.a")}
    assert list(tree.under(leaves, "model.")) == ["a", "b.c"]
    assert tree.prefixed(tree.under(leaves, "model."), "model.").keys() == {"model.a", "model.b.c"}
    assert list(tree.pick(leaves, ["phi.a", "model.a", "nothing"])) == ["model.a", "phi.a"]


def test_patterns() -> None:
    names = ["body.0.weight", "body.0.bias", "head.weight", "Head.bias"]
    assert tree.matching(names, "*") == names
    assert tree.matching(names, "head.*") == ["head.weight"], "case counts"
    assert tree.matching(names, "*.bias|head.*") == ["body.0.bias", "head.weight", "Head.bias"]
    assert tree.matching(names, "body.[1-9].*") == [] == tree.matching(names, "")


def test_detach_cuts_the_graph() -> None:
    leaf = torch.ones(2, requires_grad=True) * 2
    cut = tree.detach({"a": leaf})["a"]
    assert not cut.requires_grad and torch.equal(cut, leaf)
    assert not tree.norm({"a": leaf}).requires_grad
