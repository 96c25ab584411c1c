"""TorchOpt (Ren et al. 2022, arXiv:2211.06934): its differentiable SGD, one task after another, as its examples do."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchopt  # type: ignore[import-not-found,unused-ignore]
from torch import Tensor

from speed.problem import Problem


def make(problem: Problem, dtype: torch.dtype) -> Callable[[], dict[str, Tensor]]:
    module = problem.module(dtype)
    x, y, qx, qy = problem.tensors(dtype)
    rate = torch.tensor(problem.rate, dtype=dtype, requires_grad=True)
    names, wanted = [name for name, _ in module.named_parameters()], [*module.parameters(), rate]
    optimizer = torchopt.MetaSGD(module, lr=lambda count: rate)
    first, fresh = torchopt.extract_state_dict(module, by="reference"), torchopt.extract_state_dict(optimizer)
    different = x.shape[1]

    def one(task: int) -> tuple[Tensor, ...]:
        for t in range(problem.steps):
            optimizer.step(problem.loss(module(x[task, t % different]), y[task, t % different]))
        found = torch.autograd.grad(problem.loss(module(qx[task]), qy[task]), wanted)
        torchopt.recover_state_dict(module, first)
        torchopt.recover_state_dict(optimizer, fresh)
        return found

    def run() -> dict[str, Tensor]:
        total = [torch.zeros_like(leaf) for leaf in wanted]
        for task in range(len(x)):
            torch._foreach_add_(total, one(task))
        return dict(zip([*names, "rate"], [leaf / len(x) for leaf in total], strict=True))

    return run
