"""What was learned: the values of phi and the change of theta0, at the start and now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rbml.learner import Learner
from rbml.strategy import Hyper, Part, Scalar, Strategy
from rbml.training import RunFolder
from rbml.tree import Tree

UNITS = {
    "lr": "step / gradient",
    "decay": "share kept per step",
    "beta1": "share kept per step",
    "beta2": "share kept per step",
    "alpha": "share kept per step",
    "eps": "gradient",
    "dampening": "share left out",
    "rate": "pull / weight",
    "strength": "loss / weight²",
    "floor": "share of the rate",
    "gamma": "factor per step",
    "limit": "norm of the step",
    "std": "gradient",
    "scale": "factor",
    "adagrad.start": "gradient²",
    "warmup.start": "share of the rate",
    "inverse_time.rate": "1 / step",
    "label_smoothing.rate": "share of the label",
    "dropout.rate": "share dropped",
    "l1.strength": "loss / |weight|",
    "confidence.strength": "loss / nat",
    "clip_value.limit": "size of an element",
    "noise.decay": "power of the step",
    "lion.width": "gradient",
    "prototype.scale": "logit / distance²",
}
"""The units of the parts' numbers: by name, or by part and name if the same name means something else in that part."""

UNITLESS = {"adam", "nadam", "adagrad", "rmsprop", "lion"}
"""Rules after which the direction is normalised, so that it no longer has the units of a gradient."""


class Pair(NamedTuple):
    """At the start and now: values ``(T, n)``, where T is 1 unless every inner step has its own; or a whole tensor."""

    start: Tensor
    learned: Tensor


@dataclass(frozen=True)
class LearnedNumber:
    """A number of a strategy that can be learned, or learned tensors.

    Attributes:
        name: its name in phi: ``"sgd.lr"``.
        hyper: for a number, how finely it varies, and its bounds; ``None`` for tensors.
        layers: its values by layer (by tensor if it has one value per tensor), or its tensors by name.
        unit: the unit of its values, if it is known.
        learned: whether it is a meta-parameter.
    """

    name: str
    hyper: Hyper | None
    layers: dict[str, Pair]
    unit: str
    learned: bool

    @property
    def granularity(self) -> str:
        """How finely it varies: ``"layer, each step"``; for tensors, ``"tensor"``."""
        if self.hyper is None:
            return "tensor"
        return f"{self.hyper.per}, each step" if self.hyper.per_step else self.hyper.per


def before_and_now(run: RunFolder) -> tuple[Learner, Learner]:
    """Return the learner at its start, and the one of the best validation (or else of the last checkpoint).

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    return run.fresh(), run.learner()


def quantities(run: RunFolder) -> list[LearnedNumber]:
    """Return the learned numbers and tensors of phi, in the order of the strategy; none for plain MAML.

    Raises:
        CheckpointError: if there is no checkpoint yet, or it is damaged.
    """
    start, now = before_and_now(run)
    found = quantities_of(now.strategy, start.phi.state_dict(), now.phi.state_dict())
    return [quantity for quantity in found if quantity.learned]


def quantities_of(strategy: Strategy, before: Tree, after: Tree) -> list[LearnedNumber]:
    """Return every quantity of a strategy, learned or not, in its order.

    Args:
        strategy: the strategy.
        before: the leaves of phi at the start.
        after: the leaves of phi now.
    """
    found = []
    for place, part in enumerate(strategy.parts):
        unitless = any(_by(one) in UNITLESS for one in strategy.parts[:place])
        for name, quantity in part.hypers.items():
            whole = f"{part.name}.{name}"
            leaves = [leaf for leaf in after if leaf == whole or leaf.startswith(f"{whole}/")]
            hyper, layers = None, {}
            if isinstance(quantity, Scalar):
                hyper = Hyper(quantity.value, "all", quantity.per_step, quantity.bounds, quantity.learn)
                layers = {"no layer": Pair(*(_values(hyper, tree[whole]) for tree in (before, after)))}
            elif isinstance(quantity, Hyper):
                hyper, layers = quantity, _by_layer(whole, quantity, leaves, before, after)
            else:
                layers = {leaf[len(whole) + 1 :]: Pair(before[leaf], after[leaf]) for leaf in leaves}
            unit = UNITS.get(f"{_by(part)}.{name}", UNITS.get(name, "")) if hyper else ""
            unit = "step" if unitless and name == "lr" else unit
            found.append(LearnedNumber(whole, hyper, layers, unit, quantity.learn))
    return found


def _by(part: Part) -> str:
    return part.origin.by if part.origin else part.name


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
    """Return the layer of a leaf's address: ``"conv.0.*"`` and, for values per element, ``"conv.0.weight"``."""
    if hyper.per == "all":
        return "all layers"
    if hyper.per == "tensor":
        return address
    return address.rpartition(".")[0] or ("all layers" if address == "*" else address)


def _values(hyper: Hyper, raw: Tensor) -> Tensor:
    """Return the values of a leaf, ``(T or 1, n)``."""
    values = hyper.valid(raw.detach().double())
    return values.reshape(len(values) if hyper.per_step else 1, -1)
