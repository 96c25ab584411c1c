"""higher (Grefenstette et al. 2019, arXiv:1910.01727): one task after another, as its examples do."""

from __future__ import annotations

from collections.abc import Callable

import higher  # type: ignore[import-not-found,unused-ignore]
import torch
from torch import Tensor

from speed.problem import Problem


def make(problem: Problem, dtype: torch.dtype) -> Callable[[], dict[str, Tensor]]:
    module = problem.module(dtype)
    x, y, qx, qy = problem.tensors(dtype)
    rate = torch.tensor(problem.rate, dtype=dtype, requires_grad=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=problem.rate)
    names, wanted = [name for name, _ in module.named_parameters()], [*module.parameters(), rate]
    different = x.shape[1]

    def one(task: int) -> tuple[Tensor, ...]:
        with higher.innerloop_ctx(module, optimizer, override={"lr": [rate]}, copy_initial_weights=False) as (
            own,
            step,
        ):
            for t in range(problem.steps):
                step.step(problem.loss(own(x[task, t % different]), y[task, t % different]))
            return torch.autograd.grad(problem.loss(own(qx[task]), qy[task]), wanted)

    def run() -> dict[str, Tensor]:
        total = [torch.zeros_like(leaf) for leaf in wanted]
        for task in range(len(x)):
            torch._foreach_add_(total, one(task))
        return dict(zip([*names, "rate"], [leaf / len(x) for leaf in total], strict=True))

    return run
