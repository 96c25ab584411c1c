"""The derivatives that rbml needs beyond ``torch.func``: one pass for both halves of a second derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, func

from rbml.tree import Tree

Mode = Literal["forward", "reverse"]
Objective = Callable[[Tree, Tree], Tensor]


def grad_product(objective: Objective, theta: Tree, m: Tree, direction: Tree, mode: Mode) -> tuple[Tree, Tree]:
    r"""Differentiate :math:`\langle \nabla_\theta f(\theta, m), v \rangle` with respect to both theta and m.

    Since second derivatives commute, the two results are the tangents of :math:`(\nabla_\theta f, \nabla_m f)` along
    ``(v, 0)``: one forward-over-reverse pass gives the Hessian product and the mixed term together
    (MixFlow-MG, Kemaev et al. 2025, arXiv:2505.00793).

    Args:
        objective: a scalar function of two trees.
        theta: where the inner gradient is taken.
        m: the meta-parameters that the objective sees; may be empty.
        direction: v, of the shape of theta.
        mode: ``"forward"`` is the pass above. ``"reverse"`` differentiates the gradient backwards: more memory, but it
            needs no operator to have a forward derivative.

    Returns:
        The derivative with respect to theta and the one with respect to m, of their shapes.
    """
    if mode == "forward":
        gradients = func.grad(objective, argnums=(0, 1)) if m else _theta_only(objective)
        _, (along_theta, along_m) = func.jvp(lambda point: gradients(point, m), (theta,), (direction,))
        return along_theta, along_m
    _, pull = func.vjp(lambda point, meta: func.grad(objective)(point, meta), theta, m)
    along_theta, along_m = pull(direction)
    return along_theta, along_m


def _theta_only(objective: Objective) -> Callable[[Tree, Tree], tuple[Tree, Tree]]:
    return lambda theta, m: (func.grad(objective)(theta, m), {})


def mean_over_tasks(
    function: Callable[..., tuple[Tensor, Tree, Tree]], arguments: tuple[Tensor, ...], chunk: int
) -> tuple[Tensor, Tree, Tree]:
    """Run ``function`` on every task, vectorised over ``chunk`` tasks at a time, and average its first two results.

    The function runs *inside* ``vmap``, one gradient a task: taking the gradient of a vectorised mean instead is
    silently wrong with native batch norm (docs/facts.md).

    Args:
        function: from the tensors of one task to (loss, gradients, aux).
        arguments: tensors with the tasks in front, ``(B, ...)``.
        chunk: how many tasks at once; it bounds memory and changes the result only by rounding.

    Returns:
        The mean loss, the mean gradients, and aux with the tasks in front.
    """
    count = arguments[0].shape[0]
    vectorised = func.vmap(function)
    losses, total, auxes = [], {}, []
    for start in range(0, count, chunk):
        loss, grads, aux = vectorised(*(argument[start : start + chunk] for argument in arguments))
        losses.append(loss)
        auxes.append(aux)
        for name, grad in grads.items():
            total[name] = total[name] + grad.sum(0) if name in total else grad.sum(0)
    mean = {name: grad / count for name, grad in total.items()}
    return torch.cat(losses).mean(), mean, {name: torch.cat([aux[name] for aux in auxes]) for name in auxes[0]}
