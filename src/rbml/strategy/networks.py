"""Small networks as pure functions of a tree, for parts of a strategy that contain a network."""

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
    """Return a perceptron: layers ``0/weight`` ``(outputs, inputs)`` and ``0/bias``, initialised as in ``nn.Linear``.

    Args:
        widths: the numbers of inputs, hidden units of every layer, and outputs.
        like: a tensor whose type and device are used.
        generator: the source of random numbers; ``None`` is PyTorch's global generator.
        last: the initial value of every output, whatever the input: the weights of the last layer are zero and its
            biases have this value. ``None`` draws the last layer too.
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
    """Return numbers drawn uniformly from [-bound, bound], with the type and device of ``like``."""
    # Drawn on the CPU and then moved, so that a seed gives the same numbers on every device.
    numbers = torch.rand(tuple(shape), dtype=like.dtype, generator=generator)
    return ((2 * numbers - 1) * bound).to(like.device)


def each_step(steps: int, make: Callable[[], Tree]) -> Tree:
    """Return ``steps`` trees stacked into one with a leading T: one network per step, each drawn separately."""
    trees = [make() for _ in range(max(steps, 1))]
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}


def at_step(tree: Tree, t: Step) -> Tree:
    """Return the tree of step ``t`` from :func:`each_step`; steps beyond the last use the last."""
    return {name: row(leaf, t) for name, leaf in tree.items()}


def means(tree: Tree) -> list[Tensor]:
    """Return the mean of every leaf, in alphabetical order of the names."""
    return [tree[name].mean() for name in sorted(tree)]


def first(theta: Tree) -> Tensor:
    """Return the first parameter, whose type and device new tensors take."""
    return next(iter(theta.values()))


def check_widths(what: str, *widths: int) -> None:
    """Check that all widths are at least 1.

    Raises:
        UsageError: if one is not; the message names ``what``.
    """
    if any(width < 1 for width in widths):
        raise UsageError(f"{what} must be at least 1, not {min(widths)}")


def check_hidden(hidden: Iterable[int]) -> tuple[int, ...]:
    """Return the hidden widths, after checking that each is at least 1.

    Raises:
        UsageError: if one is not.
    """
    widths = tuple(hidden)
    check_widths("a hidden width", *widths, 1)
    return widths
