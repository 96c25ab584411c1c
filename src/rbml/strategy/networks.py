"""Small networks as pure functions of a tree, for the parts of a strategy that contain one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.tree import Step, Tree, row

Activation = Callable[[Tensor], Tensor]


def perceptron(
    widths: Sequence[int], like: Tensor, generator: torch.Generator | None, last: float | None = None
) -> Tree:
    """Return a perceptron: layers ``0/weight`` ``(outputs, inputs)`` and ``0/bias``, drawn as ``nn.Linear`` does.

    Args:
        widths: inputs, hidden widths, outputs.
        like: the type and device.
        generator: what the numbers are drawn from; ``None`` is PyTorch's global one.
        last: where every output starts whatever comes in: the last weights are zero, and its bias this. ``None`` draws
            the last layer too.
    """
    net: Tree = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        bound = 1 / math.sqrt(inputs)
        net[f"{layer}/weight"] = drawn((outputs, inputs), bound, like, generator)
        net[f"{layer}/bias"] = drawn((outputs,), bound, like, generator)
    if last is not None:
        top = len(widths) - 2
        net[f"{top}/weight"] = torch.zeros_like(net[f"{top}/weight"])
        net[f"{top}/bias"] = torch.full_like(net[f"{top}/bias"], last)
    return net


def forward(net: Tree, x: Tensor, activation: Activation) -> Tensor:
    """Return the outputs ``(..., outputs)`` of a :func:`perceptron` for ``x`` ``(..., inputs)``."""
    layers = len(net) // 2
    for layer in range(layers):
        x = x @ net[f"{layer}/weight"].mT + net[f"{layer}/bias"]
        x = activation(x) if layer + 1 < layers else x
    return x


def drawn(shape: Sequence[int], bound: float, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return numbers drawn uniformly from [-bound, bound], of the type and on the device of ``like``."""
    numbers = torch.rand(tuple(shape), dtype=like.dtype, generator=generator)
    return ((2 * numbers - 1) * bound).to(like.device)


def each_step(steps: int, make: Callable[[], Tree]) -> Tree:
    """Return ``steps`` trees as one, with a leading T: a network a step, each drawn anew."""
    trees = [make() for _ in range(max(steps, 1))]
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}


def at_step(tree: Tree, t: Step) -> Tree:
    """Return the tree of step ``t`` out of :func:`each_step`; steps beyond the last use the last."""
    return {name: row(leaf, t) for name, leaf in tree.items()}


def means(tree: Tree) -> list[Tensor]:
    """Return the mean of every leaf, in the order of their names."""
    return [tree[name].mean() for name in sorted(tree)]


def first(theta: Tree) -> Tensor:
    """Return the tensor whose type and device new ones take."""
    return next(iter(theta.values()))


def check_widths(what: str, *widths: int) -> None:
    """Refuse a network without width.

    Raises:
        UsageError: naming it.
    """
    if any(width < 1 for width in widths):
        raise UsageError(f"{what} must be at least 1, not {min(widths)}")


def check_hidden(hidden: Iterable[int]) -> tuple[int, ...]:
    """Return the hidden widths, each at least 1.

    Raises:
        UsageError: naming one that is less.
    """
    widths = tuple(hidden)
    check_widths("a hidden width", *widths, 1)
    return widths
