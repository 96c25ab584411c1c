"""``vmap(grad)`` of the whole inner loop, by hand: what ``torch.func`` gives without any library."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, func

from speed.problem import Problem


def make(problem: Problem, dtype: torch.dtype) -> Callable[[], dict[str, Tensor]]:
    module = problem.module(dtype)
    data = problem.tensors(dtype)
    m = {name: leaf.detach() for name, leaf in module.named_parameters()}
    m["rate"] = torch.tensor(problem.rate, dtype=dtype)
    different = data[0].shape[1]

    def loss(theta: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return problem.loss(func.functional_call(module, theta, (x,)), y)

    def outer(m: dict[str, Tensor], x: Tensor, y: Tensor, qx: Tensor, qy: Tensor) -> Tensor:
        theta = {name: leaf for name, leaf in m.items() if name != "rate"}
        for t in range(problem.steps):
            grads = func.grad(loss)(theta, x[t % different], y[t % different])
            theta = {name: leaf - m["rate"] * grads[name] for name, leaf in theta.items()}
        return loss(theta, qx, qy)

    each = func.vmap(func.grad(outer), in_dims=(None, 0, 0, 0, 0))
    return lambda: {name: grad.mean(0) for name, grad in each(m, *data).items()}
