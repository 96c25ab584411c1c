"""Derivatives of one task by itself, by ``torch.autograd``.

The transforms of ``torch.func`` work on several tasks at once, but keep more than twice as much for second derivatives,
and split convolutions. Where no task is beside another, plain graphs give the same derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, func
from torch.utils._pytree import tree_map

from rbml.operators.alone import is_alone
from rbml.tree import Tree

Pull = Callable[[Tree], tuple[Tree, Tree]]
"""A function from v to the derivatives of <gradient, v> with respect to theta and m."""


def gradient(function: Callable[..., Tensor], theta: Tree, *rest: Any) -> Tree:
    """Return the derivative of ``function(theta, *rest)``, a scalar, with respect to ``theta``.

    It has a graph if ``theta``, or a tensor in ``rest``, has one.
    """
    if not is_alone():
        found: Tree = func.grad(function)(theta, *rest)
        return found
    with torch.enable_grad():
        # A tensor of theta may also be one of m, as at the first step: only the way through theta counts.
        point = {name: leaf.view_as(leaf) if leaf.requires_grad else _variable(leaf) for name, leaf in theta.items()}
        value = function(point, *rest)
        onward = any(_has_graph(tree) for tree in (theta, *rest))
        return _derivatives(value, point, create_graph=onward)


def gradient_and_value(function: Callable[[Tree], tuple[Tensor, Any]], m: Tree) -> tuple[Tree, tuple[Tensor, Any]]:
    """Return the derivative of the first result of ``function(m)``, and both results, without graphs."""
    if not is_alone():
        return func.grad_and_value(function, has_aux=True)(m)
    with torch.enable_grad():
        meta = {name: _variable(leaf) for name, leaf in m.items()}
        value, aux = function(meta)
        grads = _derivatives(value, meta)
    return grads, tree_map(Tensor.detach, (value, aux))


def gradient_and_pull(function: Callable[..., Tensor], theta: Tree, m: Tree) -> tuple[Tree, Pull]:
    """Return the derivative of ``function(theta, m)`` with respect to theta, and its pull.

    The pull takes v and returns the derivatives of <derivative, v> with respect to theta and to m.
    """
    if not is_alone():
        found = func.vjp(func.grad(function), theta, m)
        return found[0], found[1]
    with torch.enable_grad():
        point, meta = ({name: _variable(leaf) for name, leaf in tree.items()} for tree in (theta, m))
        grads = _derivatives(function(point, meta), point, create_graph=True)

    def pull(direction: Tree) -> tuple[Tree, Tree]:
        kept = [name for name, grad in grads.items() if grad.requires_grad]
        variables = [*point.values(), *meta.values()]
        if kept:
            ends, along = [grads[name] for name in kept], [direction[name] for name in kept]
            second: Any = torch.autograd.grad(ends, variables, along, materialize_grads=True)
        else:
            second = [torch.zeros_like(leaf) for leaf in variables]
        return dict(zip(point, second, strict=False)), dict(zip(meta, second[len(point) :], strict=True))

    return {name: grad.detach() for name, grad in grads.items()}, pull


def values_and_pull(function: Callable[[Tree], Tree], m: Tree) -> tuple[Tree, Callable[[Tree], Tree]]:
    """Return ``function(m)``, a tree of tensors, and its pull: from one tensor for each of them to those for ``m``."""
    if not is_alone():
        found: Any = func.vjp(function, m)
        return found[0], lambda bars: found[1](bars)[0]
    with torch.enable_grad():
        meta = {name: _variable(leaf) for name, leaf in m.items()}
        values = function(meta)

    def pull(bars: Tree) -> Tree:
        kept = [name for name, value in values.items() if value.requires_grad]
        if not kept:
            return {name: torch.zeros_like(leaf) for name, leaf in m.items()}
        ends, along = [values[name] for name in kept], [bars[name] for name in kept]
        grads = torch.autograd.grad(ends, list(meta.values()), along, materialize_grads=True)
        return dict(zip(meta, grads, strict=True))

    return {name: value.detach() for name, value in values.items()}, pull


def _variable(leaf: Tensor) -> Tensor:
    return leaf.detach().requires_grad_()


def _has_graph(tree: Any) -> bool:
    if isinstance(tree, Tensor):
        return tree.requires_grad
    return isinstance(tree, dict) and any(leaf.requires_grad for leaf in tree.values())


def _derivatives(value: Tensor, variables: Tree, create_graph: bool = False) -> Tree:
    """Return the derivatives of a scalar; zeros where it does not depend on a variable."""
    if not value.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in variables.items()}
    found = torch.autograd.grad(value, list(variables.values()), create_graph=create_graph, materialize_grads=True)
    return dict(zip(variables, found, strict=True))
