"""The parts of ``strategy.ALL`` as their contract sees them, and small trees and scenes to run them in.

A part is made with a :class:`Hyper` for every argument that may be one, around its default, and is then treated as a
pure function of tensors. What a part cannot be held to is said in the tables at the top, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from rbml import strategy
from rbml.strategy import (
    Gate,
    Hyper,
    Part,
    Rule,
    Scalar,
    Start,
    StepInfo,
    Strategy,
    Term,
    TermInputs,
    Weights,
)
from rbml.tree import Tree

MAKE: dict[str, Callable[..., Part]] = dict(strategy.ALL)
PERS = ("all", "layer", "tensor", "element")

FIXED_WAYS: dict[str, str] = {
    "low_rank": "dict(rank=2)",
    "learned_optimizer": "dict(hidden=(2,), decays=(0.9,))",
    "learned_lstm": "dict(hidden=2)",
    "ml3": "dict(hidden=(3, 2))",
    "metal": "dict(hidden=3)",
    "example_weights": "dict(count=5)",
    "weight_net": "dict(hidden=(3,))",
    "warp_pictures": "dict(layers='head', shape=(1, 2, 2))",
}
"""Arguments that a test must give, or that keep it fast, as Python: ``{"rule": "dict(rank=2)"}``."""


REAL_ONLY = {"bayesian_linear"}
"""Starts that make no head for classes."""


def make(name: str, /, **options: object) -> Part:
    """Return the part as it is by default, but for the arguments above."""
    return MAKE[name](**{**eval(FIXED_WAYS.get(name, "{}")), **options})


NAMES = sorted(MAKE)
RULES = [name for name in NAMES if isinstance(make(name), Rule)]
TERMS = [name for name in NAMES if isinstance(make(name), Term)]
GATES = [name for name in NAMES if isinstance(make(name), Gate)]
STARTS = [name for name in NAMES if isinstance(make(name), Start)]


def tree(seed: int = 0) -> Tree:
    source = torch.Generator().manual_seed(seed)
    shapes = {"body.0.weight": (4, 3), "body.0.bias": (4,), "head.weight": (2, 4), "head.bias": (2,)}
    return {name: torch.randn(shape, dtype=torch.float64, generator=source) for name, shape in shapes.items()}


def numbers(name: str, kind: str = "Hyper") -> dict[str, float]:
    """Return the arguments that may be a Hyper (or a Scalar), with the value that they have without one."""
    options = eval(FIXED_WAYS.get(name, "{}"))
    parameters = inspect.signature(MAKE[name]).parameters.values()
    found = {}
    for parameter in parameters:
        if kind in str(parameter.annotation) and parameter.name not in options:
            default = parameter.default
            found[parameter.name] = float(getattr(default, "value", default))
    return found


def granular(names: list[str]) -> list[tuple[str, str]]:
    """Return every name with every granularity that its numbers can have; with one beside a network, to save time."""
    pers = {name: PERS[1:2] if has_network(name) else PERS if numbers(name) else PERS[:1] for name in names}
    return [(name, per) for name in names for per in pers[name]]


def has_network(name: str) -> bool:
    """Return whether a part has so many numbers that gradcheck shall compare random directions, not every entry."""
    return any(isinstance(quantity, Weights) for quantity in make(name).hypers.values())


def made(name: str, per: str = "all", per_step: bool = False, **options: object) -> Part:
    """Return the part with every number learned, at its default."""
    given = {argument: Hyper(value, per=per, per_step=per_step) for argument, value in numbers(name).items()}  # type: ignore[arg-type]
    given |= {argument: Scalar(value, per_step=per_step) for argument, value in numbers(name, "Scalar").items()}
    return make(name, **given, **options)


def phi_of(plan: Strategy, steps: int = 3) -> Tree:
    """Return phi a little beside its start, so that nothing is zero or the same by chance."""
    source = torch.Generator().manual_seed(1)
    learned, fixed = plan.initial(tree(), steps, source)
    noise = {key: torch.rand(leaf.shape, dtype=leaf.dtype, generator=source) for key, leaf in learned.items()}
    beside = {key: torch.where(leaf == 0, 0.01, leaf * -0.1) * noise[key] for key, leaf in learned.items()}  # same sign
    return {key: leaf + beside[key] for key, leaf in learned.items()} | fixed


def moment(t: int = 0, key: Tensor | None = None) -> StepInfo:
    return StepInfo(t, 3, torch.tensor(7) if key is None else key, torch.tensor([0, 1]))


def scene(theta: Tree, theta0: Tree, prediction: Tensor, at: StepInfo) -> TermInputs:
    source = torch.Generator().manual_seed(3)
    x = torch.randn(5, 3, dtype=torch.float64, generator=source)
    return TermInputs(theta, theta0, x, torch.arange(5) % 2, prediction, torch.nn.functional.cross_entropy, at)


def unpacked(flat: tuple[Tensor, ...], like: tuple[Tree, ...]) -> list[Tree]:
    rest = list(flat)
    return [{key: rest.pop(0) for key in one} for one in like]


def leaves(*trees: Tree) -> tuple[Tensor, ...]:
    return tuple(leaf.clone().requires_grad_() for one in trees for leaf in one.values())
