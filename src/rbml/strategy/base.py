r"""What a strategy is made of: rules, terms, gates and starts, chained in order.

A **rule** turns the gradient into a step. Rules hand a *descent direction* from one to the next, beginning with the
gradient, and in the end :math:`\theta \leftarrow \theta - d`. So every order of a chain has a meaning, and none has a
wrong sign: ``chain(weight_decay(1e-4), momentum(0.9), sgd(0.1))`` is SGD as in ``torch.optim``,
``chain(sgd(0.1), weight_decay(1e-4))`` decays apart from the gradient. A **term** adds to the inner objective, or takes
the place of the support loss. A **gate** changes the inputs of layers while the support set passes through the model.
A **start** makes the head of a task from its support set. Parts hold no tensors and no state: their numbers are phi.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import signature
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from rbml.errors import UsageError
from rbml.strategy.views import Features, StepInfo, TermInputs
from rbml.tree import Step, Tree, matching

Values = Mapping[str, Tree]
"""The numbers of one part at one step: of a :class:`Hyper` one broadcastable tensor a parameter of theta, of
:class:`Weights` the tensors themselves."""


class Parameterised(Protocol):
    """The numbers of a part: a :class:`Hyper`, a :class:`Scalar` or :class:`Weights`."""

    @property
    def learn(self) -> bool:
        """Whether they are meta-parameters."""
        ...

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        """Return the leaves at their start, named ``""`` or ``"/..."``."""
        ...

    def at(self, leaves: Tree, theta: Mapping[str, Tensor], t: Step) -> Tree:
        """Return the values that a part sees at step ``t``."""
        ...


class Origin(NamedTuple):
    """How a part was made: the function of :data:`rbml.strategy.ALL`, and its arguments."""

    by: str
    settings: Mapping[str, Any]
    maker: Callable[..., Any] | None = None


def _pickled(part: Any) -> tuple[Any, ...]:
    """Return how to make a part again: the functions that it holds cannot be pickled, but its maker can."""
    if part.origin is None or part.origin.maker is None:
        raise pickle.PicklingError(
            f"the part {part.name} of the strategy was not made by a function with @rbml.strategy.part: write one at "
            "the top of a module, and make the part with it"
        )
    learned = {name: quantity.learn for name, quantity in part.hypers.items()}
    return _made_again, (part.origin.maker, dict(part.origin.settings), learned)


def _made_again(maker: Callable[..., Any], settings: Mapping[str, Any], learned: Mapping[str, bool]) -> Any:
    part = maker(**settings)
    hypers = {
        name: quantity if quantity.learn == learned[name] else replace(quantity, learn=learned[name])
        for name, quantity in part.hypers.items()
    }
    return replace(part, hypers=hypers)


def stateless(theta: Tree) -> Tree:
    """Return the state of a rule without memory."""
    return {}


@dataclass(frozen=True)
class RunningSum:
    r"""A rule whose step can be undone: its state is a running sum, and that sum is the direction that it returns.

    .. math:: b \leftarrow decay \cdot b + inflow(d), \qquad d \leftarrow b

    Attributes:
        decay: the name of the decay in ``Rule.hypers``.
        inflow: ``(direction, values, at) -> tree``.
    """

    decay: str
    inflow: Callable[[Tree, Values, StepInfo], Tree]


@dataclass(frozen=True)
class Rule:
    """A change of the descent direction on its way to theta.

    Attributes:
        name: the prefix of its numbers in phi: ``sgd`` for ``sgd.lr``.
        hypers: its numbers, by name.
        update: ``(direction, state, theta, values, at) -> (direction, state)``, a pure function.
        init: ``theta -> state``, a flat tree; a rule without memory keeps the default.
        random: whether it draws random numbers, from ``at.key``.
        origin: filled in by :func:`part`.
        sums: how its state is undone, if that is possible (``Adjoint(store="reverse")``).
        direct: whether its result depends only on the direction, its numbers and the step, not on theta or a state: it
            may then follow a running sum in a chain that is undone.
        before: ``(theta, at) -> theta``, a pure function: what changes before step ``at.t`` takes its gradient, because
            of what that step will see; ``None`` for the usual rule, which knows only gradients.
        by_class: whether it must know when the classes of a stream come, ``at.arrivals``.
    """

    name: str
    hypers: Mapping[str, Parameterised]
    update: Callable[[Tree, Tree, Tree, Values, StepInfo], tuple[Tree, Tree]]
    init: Callable[[Tree], Tree] = field(default=stateless)
    random: bool = False
    origin: Origin | None = None
    sums: RunningSum | None = None
    direct: bool = False
    before: Callable[[Tree, StepInfo], Tree] | None = None
    by_class: bool = False

    __reduce__ = _pickled


@dataclass(frozen=True)
class Term:
    """A term that is added to the support loss, or replaces it.

    Attributes:
        name: the prefix of its numbers in phi.
        hypers: its numbers, by name.
        value: ``(values, inputs) -> scalar``.
        alone: whether it replaces the support loss.
        anchored: whether it depends on theta0, like a pull towards it. If this is false for a term that does, its
            derivative is wrong.
        random: whether it draws random numbers, from ``inputs.at.key``.
        origin: filled in by :func:`part`.
    """

    name: str
    hypers: Mapping[str, Parameterised]
    value: Callable[[Values, TermInputs], Tensor]
    alone: bool = False
    anchored: bool = True
    random: bool = False
    origin: Origin | None = None

    __reduce__ = _pickled


@dataclass(frozen=True)
class Start:
    """A start makes the head of a task from its support set, for any number of classes.

    Attributes:
        name: the prefix of its numbers in phi.
        hypers: its numbers, by name.
        head: ``(values, features) -> (weight (C, d), bias (C,))``.
        origin: filled in by :func:`part`.
    """

    name: str
    hypers: Mapping[str, Parameterised]
    head: Callable[[Values, Features], tuple[Tensor, Tensor]]
    origin: Origin | None = None

    __reduce__ = _pickled


class GateFunction(Protocol):
    """The function that a gate applies to the inputs of a layer."""

    def __call__(self, values: Values, inputs: Tensor, *, layer: str, at: StepInfo) -> Tensor:
        """Return inputs of the same shape."""
        ...


def layer_of(parameter: str) -> str:
    """Return the name of the layer that owns a parameter."""
    return parameter.rpartition(".")[0]


@dataclass(frozen=True)
class Gate:
    """A function applied to the inputs of layers while the support set passes through the model, at every inner step.

    It is not applied to queries, nor to predictions of the adapted model.

    Attributes:
        name: the prefix of its numbers in phi.
        hypers: its numbers, by name.
        layers: a pattern of names of layers with adapted parameters.
        apply: ``(values, inputs, *, layer, at) -> inputs``, of the same shape ``(n, ...)``; the values are those of
            the parameters of that one layer.
        random: whether it draws random numbers, from ``at.key``.
        origin: filled in by :func:`part`.
    """

    name: str
    hypers: Mapping[str, Parameterised]
    layers: str
    apply: GateFunction
    random: bool = False
    origin: Origin | None = None

    __reduce__ = _pickled

    def among(self, theta: Tree) -> list[str]:
        """Return the layers to whose inputs it is applied.

        Raises:
            UsageError: if there are none.
        """
        layers = list(dict.fromkeys(layer_of(name) for name in theta))
        if found := matching(layers, self.layers):
            return found
        has = ", ".join(layers)
        raise UsageError(
            f"{self.name}: layers={self.layers!r} matches no layer with adapted parameters; there are {has}"
        )


Part = Rule | Term | Gate | Start

Options = ParamSpec("Options")
Kind = TypeVar("Kind", Rule, Term, Gate, Start)


def part(factory: Callable[Options, Kind]) -> Callable[Options, Kind]:
    """Let every part that a function makes remember how it was made, so that it can be changed, saved and shown."""

    @wraps(factory)
    def make(*arguments: Options.args, **options: Options.kwargs) -> Kind:
        given = signature(factory).bind(*arguments, **options)
        given.apply_defaults()
        return replace(factory(*arguments, **options), origin=Origin(factory.__name__, dict(given.arguments), maker))

    maker: Callable[..., Any] = make
    return make
