"""The loop that everybody writes first: ``functional_call`` and ``autograd.grad``, one task after another."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, func

from speed.problem import Problem


def make(problem: Problem, dtype: torch.dtype) -> Callable[[], dict[str, Tensor]]:
    module = problem.module(dtype)
    x, y, qx, qy = problem.tensors(dtype)
    rate = torch.tensor(problem.rate, dtype=dtype, requires_grad=True)
    theta0 = {name: leaf.detach().requires_grad_() for name, leaf in module.named_parameters()}
    different = x.shape[1]

    def one(task: int) -> tuple[Tensor, ...]:
        theta: dict[str, Tensor] = theta0
        for t in range(problem.steps):
            prediction = func.functional_call(module, theta, (x[task, t % different],))
            loss = problem.loss(prediction, y[task, t % different])
            grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            theta = {name: leaf - rate * grad for (name, leaf), grad in zip(theta.items(), grads, strict=True)}
        outer = problem.loss(func.functional_call(module, theta, (qx[task],)), qy[task])
        return torch.autograd.grad(outer, [*theta0.values(), rate])

    def run() -> dict[str, Tensor]:
        total = [torch.zeros_like(leaf) for leaf in [*theta0.values(), rate]]
        for task in range(len(x)):
            torch._foreach_add_(total, one(task))
        return dict(zip([*theta0, "rate"], [leaf / len(x) for leaf in total], strict=True))

    return run
