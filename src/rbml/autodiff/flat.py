"""Trees of tensors to lists and back, at the speed that one small compiled step needs.

PyTorch's ``tree_flatten`` takes longer than such a step. The order of the leaves is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_leaves, tree_unflatten

Form = Callable[[Iterator[Any]], Any]
"""From the leaves of a tree, in order, to the tree."""


def flattened(tree: Any) -> list[Any]:
    """Return the leaves of a tree, as ``tree_leaves`` does.

    >>> flattened(({"b": 1, "a": [2, 3]}, 4))
    [1, 2, 3, 4]
    """
    leaves: list[Any] = []
    _walk(tree, leaves)
    return leaves


def _walk(tree: Any, leaves: list[Any]) -> None:
    if isinstance(tree, Tensor):
        leaves.append(tree)
    elif type(tree) is dict:
        for branch in tree.values():
            _walk(branch, leaves)
    elif type(tree) in (tuple, list) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        for branch in tree:
            _walk(branch, leaves)
    else:
        leaves.extend(tree_leaves(tree))


def form_of(spec: TreeSpec) -> Form:
    """Return what gives leaves the form of a tree.

    >>> from torch.utils._pytree import tree_structure
    >>> form_of(tree_structure(({"b": 1, "a": [2, 3]}, 4)))(iter("wxyz"))
    ({'b': 'w', 'a': ['x', 'y']}, 'z')
    """
    if spec.is_leaf():
        return next
    branches = [form_of(branch) for branch in spec.children()]
    if spec.type is dict:
        keys = list(spec.context)
        return lambda leaves: {key: branch(leaves) for key, branch in zip(keys, branches, strict=True)}
    if spec.type is tuple:
        return lambda leaves: tuple([branch(leaves) for branch in branches])
    if spec.type is list:
        return lambda leaves: [branch(leaves) for branch in branches]
    made = spec.context
    if isinstance(made, type) and hasattr(made, "_fields"):  # a named tuple
        return lambda leaves: made(*[branch(leaves) for branch in branches])
    count = spec.num_leaves
    return lambda leaves: tree_unflatten([next(leaves) for _ in range(count)], spec)
