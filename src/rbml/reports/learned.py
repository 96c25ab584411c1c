"""What was learned, in numbers: phi in real values and theta0, each at its start and now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rbml.learner import Learner
from rbml.strategy import Hyper
from rbml.training import RunFolder
from rbml.tree import Tree

UNITS = {
    "lr": "step / gradient",
    "decay": "share kept a step",
    "rate": "pull / weight",
    "strength": "loss / weight²",
}
"""Of the numbers that rules and terms know, by their names."""


class Pair(NamedTuple):
    """Values at the start and now, each ``(T, n)``: T is 1 unless every inner step has its own."""

    start: Tensor
    learned: Tensor


@dataclass(frozen=True)
class Quantity:
    """One learned :class:`rbml.strategy.Hyper`.

    Attributes:
        name: where it is filed: ``"sgd.lr"``.
        hyper: how finely it varies, and in which bounds.
        layers: its values by layer (by tensor, where it has one value a tensor).
    """

    name: str
    hyper: Hyper
    layers: dict[str, Pair]

    @property
    def unit(self) -> str:
        """The unit of its values, where it is known."""
        return UNITS.get(self.name.rpartition(".")[2], "")


def before_and_now(run: RunFolder) -> tuple[Learner, Learner]:
    """Return the learner as it started and the learner of the best validation (or else of the last checkpoint).

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    return run.recipe().build_learner(), run.learner()


def quantities(run: RunFolder) -> list[Quantity]:
    """Return everything of phi that was learned, in the order of the strategy; nothing for plain MAML.

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    start, now = before_and_now(run)
    before: Tree = dict(start.phi.named_parameters())
    after: Tree = dict(now.phi.named_parameters())
    found = []
    for part in now.strategy.parts:
        for name, hyper in part.hypers.items():
            whole = f"{part.name}.{name}"
            leaves = [leaf for leaf in after if leaf == whole or leaf.startswith(f"{whole}/")]
            if leaves and isinstance(hyper, Hyper):
                layers = _by_layer(whole, hyper, leaves, before, after)
                found.append(Quantity(whole, hyper, layers))
    return found


def moves(run: RunFolder) -> dict[str, float]:
    r"""Return how far theta0 moved, by layer: :math:`\|\theta_0 - \theta_{start}\| / \|\theta_{start}\|`.

    Infinite for a layer that started at zero and moved.

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    start, now = before_and_now(run)
    before = dict(start.model.named_parameters())
    way: dict[str, float] = {}
    size: dict[str, float] = {}
    for name, leaf in now.model.named_parameters():
        layer = name.rpartition(".")[0] or name
        was = before[name].detach().double()
        way[layer] = way.get(layer, 0.0) + (leaf.detach().double() - was).square().sum().item()
        size[layer] = size.get(layer, 0.0) + was.square().sum().item()
    return {
        layer: (way[layer] / size[layer]) ** 0.5 if size[layer] else (float("inf") if way[layer] else 0.0)
        for layer in way
    }


def _by_layer(whole: str, hyper: Hyper, leaves: list[str], before: Tree, after: Tree) -> dict[str, Pair]:
    grouped: dict[str, list[str]] = {}
    for leaf in leaves:
        grouped.setdefault(_layer(leaf[len(whole) + 1 :], hyper), []).append(leaf)
    return {
        layer: Pair(*(torch.cat([_values(hyper, tree[leaf]) for leaf in group], 1) for tree in (before, after)))
        for layer, group in grouped.items()
    }


def _layer(address: str, hyper: Hyper) -> str:
    """Return the layer of a leaf's address: ``"conv.0.*"`` and, an element, ``"conv.0.weight"`` are of ``conv.0``."""
    if hyper.per == "all":
        return "all layers"
    if hyper.per == "tensor":
        return address
    return address.rpartition(".")[0] or ("all layers" if address == "*" else address)


def _values(hyper: Hyper, raw: Tensor) -> Tensor:
    """Return the values of a leaf, ``(T or 1, n)``."""
    values = hyper.valid(raw.detach().double())
    return values.reshape(len(values) if hyper.per_step else 1, -1)
