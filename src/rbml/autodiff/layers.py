"""Find the parts of a model (norms, head, tied weights) by type and use, not by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from rbml.autodiff.module import call
from rbml.tree import Tree

NORMS: tuple[type[nn.Module], ...] = (
    *(_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d),
)
"""PyTorch's own normalisation layers; ``_NormBase`` includes batch and instance norm."""


def norm_layers(module: nn.Module) -> list[str]:
    """Return the names of the normalisation layers that have parameters of their own.

    They are PyTorch's own, and any layer without children whose class name ends in ``Norm``, ``Norm1d``, ``Norm2d`` or
    ``Norm3d``.

    >>> norm_layers(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.BatchNorm1d(3, affine=False)))
    ['1']
    """
    return [name for name, layer in module.named_modules() if _is_norm(layer) and _has_own(layer)]


def norm_parameters(module: nn.Module) -> list[str]:
    """Return the names of the parameters of all normalisation layers, in the order of the module.

    >>> norm_parameters(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    ['1.weight', '1.bias']
    """
    layers = set(norm_layers(module))
    return [name for name, _ in module.named_parameters() if name.rpartition(".")[0] in layers]


def _is_norm(layer: nn.Module) -> bool:
    name = type(layer).__name__.removesuffix("1d").removesuffix("2d").removesuffix("3d")
    return isinstance(layer, NORMS) or (name.endswith("Norm") and not layer._modules)


def _has_own(layer: nn.Module) -> bool:
    return next(layer.parameters(recurse=False), None) is not None


def head_of(module: nn.Module, x: Tensor | Tree | None = None) -> str | None:
    """Return the name of the linear layer whose outputs are the model's outputs; ``None`` if there is none.

    Args:
        module: the model; with ``x``, an isolated one (:func:`rbml.autodiff.module.isolated`).
        x: a few examples ``(n, ...)``: the head is then the last linear layer that is called, if what the model returns
            is what that layer returned, or has the same numbers in another shape. ``None`` takes the last linear layer
            in the order in which the model defines them.

    >>> head_of(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4)))
    '2'
    """
    linear = {layer: name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    if x is None or not linear:
        return next(reversed(linear.values()), None)
    called: list[tuple[str, Tensor]] = []

    def look(layer: nn.Module, _: tuple[object, ...], output: Tensor) -> None:
        called.append((linear[layer], output))  # type: ignore[index]

    handles = [layer.register_forward_hook(look) for layer in linear]
    try:
        with torch.no_grad():
            prediction = call(module, {}, x)
    finally:
        for handle in handles:
            handle.remove()
    name, output = called[-1] if called else ("", None)
    same = output is not None and prediction.numel() == output.numel()
    return name if same and prediction.data_ptr() == output.data_ptr() else None  # type: ignore[union-attr]


def head_parameters(module: nn.Module, x: Tensor | Tree | None = None) -> list[str]:
    """Return the names of the head's parameters, as :meth:`torch.nn.Module.named_parameters` has them.

    A tied weight has one name there, perhaps that of another layer; arguments as :func:`head_of`.

    >>> head_parameters(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 4)))
    ['2.weight', '2.bias']
    """
    if (name := head_of(module, x)) is None:
        return []
    own = {id(leaf) for leaf in module.get_submodule(name).parameters()}
    return [name for name, leaf in module.named_parameters() if id(leaf) in own]


def tied(module: nn.Module) -> list[tuple[str, ...]]:
    """Return the groups of names that share one parameter, each in the order of the module.

    The first name of a group is the one that :meth:`torch.nn.Module.named_parameters` has.

    >>> model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    >>> model[1].weight = model[0].weight
    >>> tied(model)
    [('0.weight', '1.weight')]
    """
    names: dict[int, list[str]] = {}
    for name, leaf in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(leaf), []).append(name)
    return [tuple(group) for group in names.values() if len(group) > 1]
