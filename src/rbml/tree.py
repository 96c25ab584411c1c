"""Flat, named trees of tensors, and the arithmetic on them that the other modules need.

Parameters, optimizer state and gradients are all ``Tree``: a dict from name to tensor. Names are those of
``nn.Module.named_parameters()``, so that a pattern such as ``"head.*"`` addresses them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

import torch
from torch import Tensor

Tree = dict[str, Tensor]

Step = int | Tensor
"""An inner step, counted from 0: an int, or an integer tensor ``()``, so that one traced step serves all of them."""


def row(leaf: Tensor, t: Step) -> Tensor:
    """Return row ``t`` of ``(T, ...)``, the last one for steps beyond it; t may be a tensor, under ``vmap`` or traced.

    >>> row(torch.tensor([1.0, 2.0]), 5), row(torch.tensor([1.0, 2.0]), torch.tensor(0))
    (tensor(2.), tensor(1.))
    """
    if isinstance(t, int):
        return leaf[min(t, len(leaf) - 1)]
    # Indexing with a tensor would ask for its value, which neither vmap nor a trace knows.
    place = t.clamp(max=len(leaf) - 1).reshape(1, *[1] * (leaf.dim() - 1))
    return leaf.gather(0, place.expand(1, *leaf.shape[1:])).squeeze(0)


def tmap(function: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """Apply ``function`` leaf by leaf to trees of the same names.

    >>> tmap(torch.add, {"a": torch.ones(2)}, {"a": torch.ones(2)})
    {'a': tensor([2., 2.])}
    """
    return {name: function(leaf, *(other[name] for other in others)) for name, leaf in tree.items()}


def add(tree: Tree, other: Tree) -> Tree:
    """Return the sum over the names of either tree; a name that only one of them has keeps its leaf.

    >>> add({"a": torch.tensor(1.0)}, {"a": torch.tensor(2.0), "b": torch.tensor(3.0)})
    {'a': tensor(3.), 'b': tensor(3.)}
    """
    total = dict(tree)
    for name, leaf in other.items():
        total[name] = total[name] + leaf if name in total else leaf
    return total


def scale(tree: Tree, factor: float | Tensor) -> Tree:
    """Multiply every leaf by ``factor``."""
    return {name: leaf * factor for name, leaf in tree.items()}


def zeros_like(tree: Tree) -> Tree:
    """Return zeros of the same names and shapes."""
    return {name: torch.zeros_like(leaf) for name, leaf in tree.items()}


def detach(tree: Tree) -> Tree:
    """Return the same values, detached from the graph."""
    return {name: leaf.detach() for name, leaf in tree.items()}


def pick(tree: Tree, names: Iterable[str]) -> Tree:
    """Return the part of ``tree`` with the given names, in the order of ``tree``."""
    wanted = set(names)
    return {name: leaf for name, leaf in tree.items() if name in wanted}


def under(tree: Tree, prefix: str) -> Tree:
    """Return the leaves whose names begin with ``prefix``, with the prefix removed.

    >>> under({"model.w": torch.ones(1), "phi.lr": torch.ones(1)}, "phi.")
    {'lr': tensor([1.])}
    """
    return {name[len(prefix) :]: leaf for name, leaf in tree.items() if name.startswith(prefix)}


def prefixed(tree: Tree, prefix: str) -> Tree:
    """Return the same leaves with ``prefix`` before every name: the inverse of :func:`under`."""
    return {prefix + name: leaf for name, leaf in tree.items()}


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """Return the names that match a shell pattern; ``|`` joins several patterns, and ``!`` before one excludes.

    >>> matching(["conv.weight", "head.weight", "head.bias"], "head.*")
    ['head.weight', 'head.bias']
    >>> matching(["conv.weight", "head.weight", "head.bias"], "!head.*")
    ['conv.weight']
    """
    patterns = pattern.split("|")
    wanted = [one for one in patterns if not one.startswith("!")] or ["*"]
    left_out = [one[1:] for one in patterns if one.startswith("!")]

    def fits(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, one) for one in patterns)

    return [name for name in names if fits(name, wanted) and not fits(name, left_out)]


def dot(tree: Tree, other: Tree) -> Tensor:
    """Return the inner product over all leaves, a scalar."""
    return torch.stack([(leaf * other[name]).sum() for name, leaf in tree.items()]).sum()


def norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm over all leaves, a scalar."""
    return torch.sqrt(torch.stack([leaf.detach().pow(2).sum() for leaf in tree.values()]).sum())
