"""Derivatives beyond ``torch.func``: both halves of a second derivative in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, func

from rbml.autodiff.alone import gradient_and_pull
from rbml.autodiff.threads import forward_derivative
from rbml.operators.alone import is_alone
from rbml.tree import Tree, add, norm, scale, tmap

Mode = Literal["forward", "reverse", "difference"]
Objective = Callable[[Tree, Tree], Tensor]


def grad_product(objective: Objective, theta: Tree, m: Tree, direction: Tree, mode: Mode) -> tuple[Tree, Tree]:
    r"""Differentiate :math:`\langle \nabla_\theta f(\theta, m), v \rangle` with respect to both theta and m.

    Since second derivatives commute, the two results are the tangents of :math:`(\nabla_\theta f, \nabla_m f)` along
    ``(v, 0)``: one forward-over-reverse pass gives the Hessian product and the mixed term together
    (MixFlow-MG, Kemaev et al. 2025, arXiv:2505.00793).

    Args:
        objective: a scalar function of two trees.
        theta: the point at which the inner gradient is taken.
        m: the meta-parameters on which the objective depends; may be empty.
        direction: v, of the shape of theta.
        mode: ``"forward"`` is the pass above. ``"reverse"`` differentiates the gradient backwards: more memory, but it
            works for operators without a forward derivative. ``"difference"`` takes two gradients, a small step along
            v and one against it, and no second derivative: approximate.

    Returns:
        The derivative with respect to theta and the one with respect to m, of their shapes.
    """
    if mode == "forward" and not is_alone():
        gradients = func.grad(objective, argnums=(0, 1)) if m else _theta_only(objective)
        theta = {name: leaf.contiguous() for name, leaf in theta.items()}  # an expanded tensor cannot have a tangent
        along_theta, along_m = forward_derivative(lambda point: gradients(point, m), (theta,), (direction,))[1]
        # PyTorch gives the tangent of a float32 number (0-d) as float64 behind sigmoid and sqrt.
        return tmap(Tensor.type_as, along_theta, theta), tmap(Tensor.type_as, along_m, m)
    if mode == "difference":
        return _central_difference(objective, theta, m, direction)
    return gradient_and_pull(objective, theta, m)[1](direction)


def _theta_only(objective: Objective) -> Callable[[Tree, Tree], tuple[Tree, Tree]]:
    return lambda theta, m: (func.grad(objective)(theta, m), {})


def _central_difference(objective: Objective, theta: Tree, m: Tree, direction: Tree) -> tuple[Tree, Tree]:
    r"""Return :func:`grad_product` by a central difference.

    .. math:: \frac{|v|}{2r} \left(\nabla f(\theta + r v / |v|, m) - \nabla f(\theta - r v / |v|, m)\right)

    DARTS (Liu et al. 2019, arXiv:1806.09055) has r = 0.01. Here :math:`r = 2 \epsilon^{1/3}` with the rounding error
    :math:`\epsilon` of the type: 0.01 in float32, 1.2e-5 in float64, where truncation and rounding are about equal.
    """
    length = norm(direction)
    radius = 2 * torch.finfo(length.dtype).eps ** (1 / 3)
    unit = scale(direction, radius / torch.where(length > 0, length, 1))
    gradients = func.grad(objective, argnums=(0, 1)) if m else _theta_only(objective)
    ahead, behind = gradients(add(theta, unit), m), gradients(add(theta, scale(unit, -1)), m)
    along_theta, along_m = (
        tmap(lambda a, b: (a - b) * (length / (2 * radius)), one, other)
        for one, other in zip(ahead, behind, strict=True)
    )
    return along_theta, along_m
