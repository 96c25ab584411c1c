"""Tasks on threads of their own: each thread has its own copy of a module, and what threads cannot share is refused."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
from torch import Tensor, func, nn

from rbml.autodiff import OverTasks
from rbml.autodiff.module import call, inputs_of, isolated
from rbml.autodiff.threads import forward_derivative, has_modes, own_copy, side_by_side
from rbml.errors import UsageError
from rbml.operators.alone import is_in_threads
from rbml.tree import Tree

pytestmark = pytest.mark.usefixtures("two_threads")


def network() -> nn.Module:
    return isolated(nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16, track_running_stats=False), nn.Linear(16, 3)))


def test_results_come_in_order_from_threads_with_one_thread_per_operator() -> None:
    together = threading.Barrier(2, timeout=20)

    def work(i: int) -> tuple[int, int]:
        together.wait()  # two of them run at the same time
        return i, torch.get_num_threads()

    assert side_by_side([partial(work, i) for i in range(6)]) == [(i, 1) for i in range(6)]
    assert torch.get_num_threads() == 2


def test_each_thread_has_a_copy_of_a_module_with_the_same_tensors() -> None:
    module, together = network(), threading.Barrier(2, timeout=20)
    assert own_copy(module) is module

    def work() -> nn.Module:
        together.wait()
        own = own_copy(module)
        assert own is own_copy(module) and own is own_copy(own)
        return own

    one, other = side_by_side([work, work])
    assert len({id(module), id(one), id(other)}) == 3
    for copied in (one, other):
        assert all(a is b for a, b in zip(copied.parameters(), module.parameters(), strict=True))
        assert copied[0] is not module[0]  # type: ignore[index]


def test_an_error_of_one_task_is_raised() -> None:
    def fail() -> int:
        raise UsageError("no such thing")

    with pytest.raises(UsageError, match="no such thing"):
        side_by_side([fail, lambda: 1, lambda: 2])


def test_whether_gradients_are_recorded_is_the_same_in_all_threads() -> None:
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            assert side_by_side([torch.is_grad_enabled] * 3) == [enabled] * 3


def gradients_of(module: nn.Module, m: Tree, x: Tensor) -> tuple[Tensor, Tree, Tree]:
    with torch.enable_grad():
        point = {name: leaf.detach().requires_grad_() for name, leaf in m.items()}
        loss = call(module, point, x).square().mean() + inputs_of(module, point, x, "2").square().mean()
        grads = torch.autograd.grad(loss, list(point.values()))
    return loss.detach(), dict(zip(m, grads, strict=True)), {"in_threads": torch.tensor(is_in_threads())}


def test_tasks_on_threads_give_bit_for_bit_what_they_give_one_after_another() -> None:
    module, x = network(), torch.randn(20, 7, 6)
    m = {name: leaf.detach() for name, leaf in module.named_parameters()}
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(OverTasks(8).mean(partial(gradients_of, module), m, x, separately=True))
    torch.testing.assert_close(found[0][:2], found[1][:2], rtol=0, atol=0)
    assert found[1][2]["in_threads"].all()


def test_inside_a_mode_or_a_transform_tasks_run_in_this_thread() -> None:
    assert not has_modes()
    with torch.autocast("cpu"):
        assert has_modes()
        _, _, aux = OverTasks(8).mean(
            lambda m, row: (row.sum(), {}, {"in_threads": torch.tensor(is_in_threads())}),
            {},
            torch.ones(4, 2),
            separately=True,
        )
        assert not aux["in_threads"].any()
    with torch.inference_mode():
        assert has_modes()


class TakesForwardDerivatives(nn.Linear):
    """A model whose prediction contains a forward derivative."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = func.jvp(lambda at: torch.tanh(super(TakesForwardDerivatives, self).forward(at)), (x,), (x,))[1]
        return found


def test_a_model_with_forward_derivatives_is_refused_in_threads() -> None:
    module, x = isolated(TakesForwardDerivatives(6, 3)), torch.randn(4, 7, 6)
    m = {name: leaf.detach() for name, leaf in module.named_parameters()}

    def loss(m: Tree, x: Tensor) -> tuple[Tensor, Tree, Tree]:
        return call(module, m, x).sum(), {}, {}

    with pytest.raises(UsageError, match=r"set torch.set_num_threads\(1\), or vectorise=True"):
        OverTasks(4).mean(loss, m, x, separately=True)
    torch.set_num_threads(1)
    OverTasks(4).mean(loss, m, x, separately=True)


def test_forward_derivatives_of_engines_are_taken_in_one_thread_at_a_time() -> None:
    module, together = network(), threading.Barrier(2, timeout=20)
    m = {name: leaf.detach() for name, leaf in module.named_parameters()}

    def along(x: Tensor) -> Tensor:
        found: Tensor = forward_derivative(lambda at: call(module, m, at), (x,), (x + 1,))[1]
        return found

    def often(x: Tensor) -> Tensor:
        together.wait()
        return torch.stack([along(x) for _ in range(50)])

    inputs = torch.randn(2, 7, 6)
    truth = [along(x) for x in inputs]
    for found, true in zip(side_by_side([partial(often, x) for x in inputs]), truth, strict=True):
        torch.testing.assert_close(found, true.expand_as(found))
