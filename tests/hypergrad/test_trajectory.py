from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rbml.hypergrad.trajectory import everything, segments
from rbml.inner import Carry, Inner
from rbml.tree import Tree


def counted(steps: int) -> tuple[Inner, list[int]]:
    """Return a problem that counts which gradients were taken."""
    taken: list[int] = []

    def objective(theta: Tree, m: Tree, t: int) -> Tensor:
        taken.append(t)
        return (theta["w"] ** 2).sum() * (t + 1)

    def update(grads: Tree, carry: Carry, m: Tree, t: int) -> Carry:
        return Carry({"w": carry.theta["w"] - 0.01 * grads["w"]}, {})

    def outer(carry: Carry, m: Tree) -> tuple[Tensor, Tree]:
        return carry.theta["w"].sum(), {}

    return Inner(lambda m: Carry({"w": m["w"]}, {}), objective, update, outer, steps), taken


@pytest.mark.parametrize("keep", [0, 2])
@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 9, 10, 16, 17, 50])
def test_segments_are_the_same_stops_with_most_gradients_taken_twice(steps: int, first: int, keep: int) -> None:
    inner, taken = counted(steps)
    m, first = {"w": torch.tensor([1.0, 2.0])}, min(first, steps)
    whole = everything(inner, m, first, keep)
    stops = list(whole.back)
    assert [stop.t for stop in stops] == list(reversed(range(first, steps))) and taken == list(range(steps))
    assert [stop.t for stop in stops if stop.pull] == list(reversed(range(max(first, steps - keep), steps)))
    taken.clear()
    some = segments(inner, m, first, keep)
    length = math.ceil(math.sqrt(steps - first))
    for stop, truth in zip(some.back, stops, strict=True):
        assert stop.t == truth.t and torch.equal(stop.grads["w"], truth.grads["w"])
        assert torch.equal(stop.carry.theta["w"], truth.carry.theta["w"])
        end = min(first + ((stop.t - first) // length + 1) * length, steps)
        assert (stop.pull is not None) == (stop.t >= end - keep), "the last of each segment keep their graph"
    assert torch.equal(some.last.theta["w"], whole.last.theta["w"])
    assert len(taken) <= steps + max(steps - first - 1, 0)
    if steps - first > 1:
        last = (steps - first - 1) % length + 1
        assert len(taken) == 2 * steps - first - last, "the last segment is kept on the way there"
