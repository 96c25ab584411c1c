"""Tasks side by side, and one after another where a function does not allow that."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from rbml.autodiff import Compiled, OverTasks
from rbml.autodiff.over_tasks import Whole
from rbml.errors import UsageError
from rbml.tree import Tree


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8])
def test_the_mean_is_over_tasks_and_not_over_chunks(chunk: int) -> None:
    """Seven tasks in chunks of 2 leave one alone: a mean of the chunks' means would count it twice."""
    x, m = torch.randn(7, 3, dtype=torch.float64), {"scale": torch.tensor(2.0).double()}
    loss, grads, aux = OverTasks(chunk).mean(lambda m, row: (row.sum(), {"g": row * m["scale"]}, {"x": row * 3}), m, x)
    assert torch.allclose(loss, x.sum(1).mean(), rtol=1e-13) and torch.allclose(grads["g"], 2 * x.mean(0), rtol=1e-13)
    assert torch.equal(aux["x"], x * 3)


def test_the_function_is_vectorised_chunk_by_chunk() -> None:
    sizes = []

    def one(m: Tree, row: Tensor) -> tuple[Tensor, Tree, Tree]:
        sizes.append(torch._C._functorch.get_unwrapped(row).shape[0])
        return row.sum(), {}, {}

    OverTasks(3).mean(one, {}, torch.zeros(7, 3))
    assert sizes == [3, 3, 1]


def looks(m: Tree, row: Tensor) -> tuple[Tensor, Tree, Tree]:
    """Look at a value, which ``vmap`` does not allow."""
    sign = 1.0 if row.sum().item() > 0 else -1.0
    return sign * row.sum(), {"g": sign * row}, {"x": row}


def test_what_vmap_does_not_allow_is_taken_one_by_one_and_said_once() -> None:
    x, over_tasks = torch.randn(5, 3), OverTasks(2)
    with pytest.warns(UserWarning, match="tasks run one after another"):
        loss, grads, aux = over_tasks.mean(looks, {}, x)
    signs = torch.sign(x.sum(1))
    assert torch.allclose(loss, x.sum(1).abs().mean()) and torch.equal(aux["x"], x)
    assert torch.allclose(grads["g"], (signs[:, None] * x).mean(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        over_tasks.mean(looks, {}, x)
        OverTasks(2, vectorise=False).mean(looks, {}, x)


def test_vmap_on_demand_says_what_is_in_its_way() -> None:
    with pytest.raises(UsageError, match="vectorise='auto' or False"):
        OverTasks(2, vectorise=True).mean(looks, {}, torch.randn(5, 3))


def test_a_fault_that_is_not_vmaps_is_raised_as_it_is() -> None:
    def broken(m: Tree, row: Tensor) -> tuple[Tensor, Tree, Tree]:
        raise ZeroDivisionError("by itself")

    with pytest.raises(ZeroDivisionError, match="by itself"):
        OverTasks(2).mean(broken, {}, torch.randn(5, 3))


@pytest.mark.filterwarnings("ignore:the device has too little memory")
def test_chunks_become_smaller_where_a_device_has_too_little_memory() -> None:
    sizes: list[int] = []

    def one(m: Tree, row: Tensor) -> tuple[Tensor, Tree, Tree]:
        sizes.append(torch._C._functorch.get_unwrapped(row).shape[0])
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return row.sum(), {"g": row}, {"x": row}

    x, over_tasks = torch.randn(7, 3), OverTasks(8)
    loss, grads, aux = over_tasks.mean(one, {}, x)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1] and over_tasks.chunk == 1
    assert torch.allclose(loss, x.sum(1).mean()) and torch.allclose(grads["g"], x.mean(0))
    assert torch.equal(aux["x"], x)


def test_memory_that_one_task_does_not_have_is_an_error() -> None:
    def one(m: Tree, row: Tensor) -> tuple[Tensor, Tree, Tree]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="too little memory for 2 tasks"):
        OverTasks(2).mean(one, {}, torch.randn(2, 3))


class Counted(Whole):
    """Counts the sums that are handed over to be added: one per chunk, whatever runs at once."""

    def __init__(self) -> None:
        self.sums = 0

    def added(self, sums: Iterable[Tree]) -> Tree:
        found = list(sums)
        self.sums += len(found)
        return super().added(found)


@pytest.mark.parametrize("way", ["compiled", "stacks", "graphs of stacks"])
def test_tasks_that_run_by_themselves_are_added_chunk_by_chunk(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes exchange one sum per chunk: with one per task, some would be left out."""
    monkeypatch.setattr("rbml.autodiff.compiled._native", lambda graph, leaves, threads: graph)
    x, m, shard = torch.randn(5, 3, dtype=torch.float64), {"scale": torch.tensor(2.0).double()}, Counted()

    def one(m: Tree, row: Tensor) -> tuple[Tensor, Tree, Tree]:
        return row.sum(), {"g": row * m["scale"]}, {"x": row * 3}

    def stack(m: Tree, rows: Tensor) -> tuple[Tensor, Tree, Tree]:
        assert len(rows) == 1
        return rows.sum(1), {"g": rows * m["scale"]}, {"x": rows * 3}

    if way == "compiled":
        loss, grads, aux = OverTasks(2).mean(one, m, x, Compiled(), shard=shard, separately=True)
    else:
        graphs = None if way == "stacks" else "some"
        loss, grads, aux = OverTasks(2).mean_of_stacks(stack, m, x, graphs, shard, separately=True)
    assert shard.sums == 3, "two chunks of two tasks and one of one"
    assert torch.allclose(loss, x.sum(1).mean(), rtol=1e-13) and torch.allclose(grads["g"], 2 * x.mean(0), rtol=1e-13)
    assert torch.equal(aux["x"], x * 3)
