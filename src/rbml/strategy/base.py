r"""What a strategy is made of: rules, terms, gates and starts, chained in order.

A **rule** turns the gradient into a step. Rules hand a *descent direction* from one to the next, beginning with the
gradient, and in the end :math:`\theta \leftarrow \theta - d`. So every order of a chain has a meaning, and none has a
wrong sign: ``chain(weight_decay(1e-4), momentum(0.9), sgd(0.1))`` is SGD as in ``torch.optim``,
``chain(sgd(0.1), weight_decay(1e-4))`` decays apart from the gradient. A **term** adds to the inner objective, or takes
the place of the support loss. A **gate** changes the inputs of layers while the support set passes through the model.
A **start** makes the head of a task from its support set. Parts hold no tensors and no state: their numbers are phi.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from inspect import signature
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from rbml.data.batch import masked_mean
from rbml.errors import UsageError
from rbml.tree import Step, Tree, matching, pick, prefixed, tmap, under

Values = Mapping[str, Tree]
"""The numbers of one part at one step: of a :class:`Hyper` one broadcastable tensor a parameter of theta, of
:class:`Weights` the tensors themselves."""


class Parameterised(Protocol):
    """What a part has as its numbers: a :class:`Hyper`, a :class:`Scalar` or :class:`Weights`."""

    @property
    def learn(self) -> bool:
        """Whether they are meta-parameters."""
        ...

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        """Return the leaves at their start, named ``""`` or ``"/..."``."""
        ...

    def at(self, leaves: Tree, theta: Mapping[str, Tensor], t: Step) -> Tree:
        """Return what a part sees of the leaves at step ``t``."""
        ...


class StepInfo(NamedTuple):
    """When a part acts.

    Attributes:
        t: the inner step, from 0; a tensor where one traced step serves all of them.
        steps: T, how many there are.
        key: a whole number that differs from task to task, for :func:`rbml.strategy.normal`; ``None`` where nothing is
            drawn.
    """

    t: Step
    steps: int = 1
    key: Tensor | None = None

    @property
    def time(self) -> float | Tensor:
        """The step as a number to calculate with: in double precision, whatever it came in."""
        return float(self.t) if isinstance(self.t, int) else self.t.double()

    def first(self, here: Tree, later: Tree) -> Tree:
        """Return one tree at step 0 and another at every later step."""
        if isinstance(self.t, int):
            return here if self.t == 0 else later
        started = self.t > 0
        return tmap(lambda a, b: torch.where(started, b, a), here, later)


class TermInputs(NamedTuple):
    """What a term sees.

    Attributes:
        theta: what is adapted, now.
        theta0: what is adapted, at its start.
        x: support examples ``(n, ...)``.
        y: their targets ``(n, ...)``.
        prediction: the model's prediction for them ``(n, ...)``.
        loss: the learner's loss, from (prediction, target) to a scalar.
        at: when.
        mask: of the batch: ``"example"`` ``(n,)`` and ``"class"`` ``(C,)``, see :class:`rbml.data.batch.Batch`.
    """

    theta: Tree
    theta0: Tree
    x: Tensor
    y: Tensor
    prediction: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    at: StepInfo
    mask: Tree = {}  # noqa: RUF012  never written to

    def losses(self) -> Tensor:
        """Return the loss of every example by itself, ``(n,)``."""
        return each_loss(self.loss, self.prediction, self.y)

    def mean(self, each: Tensor) -> Tensor:
        """Return the mean of ``(n, ...)`` over the examples that count."""
        return masked_mean(each, self.mask)

    def over_classes(self, each: Tensor, dim: int = 1, mean: bool = False) -> Tensor:
        """Return the sum, or the mean, along the dimension of the classes, over those that the task has."""
        present = self.mask.get("class")
        if present is None:
            return each.mean(dim) if mean else each.sum(dim)
        shape = [1] * each.dim()
        shape[dim] = -1
        total = torch.where(present.reshape(shape), each, 0).sum(dim)
        return total / present.sum() if mean else total

    def objective(self) -> Tensor:
        """Return the support loss, a scalar."""
        return masked_loss(self.loss, self.prediction, self.y, self.mask)


class Features(NamedTuple):
    """What a start sees.

    Attributes:
        features: the inputs of the head for the support examples at theta0, ``(n, d)``.
        y: their labels ``(n,)``.
        ways: C, how many classes there are; of real values, how many numbers a target has.
        mask: which examples count, ``(n,)``; ``None`` is all of them.
    """

    features: Tensor
    y: Tensor
    ways: int
    mask: Tensor | None = None


class Origin(NamedTuple):
    """How a part was made: by which function of :data:`rbml.strategy.ALL`, of what."""

    by: str
    settings: Mapping[str, Any]


def each_loss(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, y: Tensor) -> Tensor:
    """Return the loss of every example by itself, ``(n,)``."""
    return torch.func.vmap(loss)(prediction[:, None], y[:, None])


def masked_loss(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, y: Tensor, mask: Tree) -> Tensor:
    """Return the loss of a batch; with a mask, the mean of the examples' own losses over those that count."""
    return masked_mean(each_loss(loss, prediction, y), mask) if "example" in mask else loss(prediction, y)


def at_least_float32(leaf: Tensor) -> Tensor:
    """Return floating-point numbers of half precision in single precision, others as they are."""
    return leaf.float() if leaf.dtype in (torch.float16, torch.bfloat16) else leaf


def stateless(theta: Tree) -> Tree:
    """Return the state of a rule without memory."""
    return {}


@dataclass(frozen=True)
class RunningSum:
    r"""What makes a rule's step one that can be walked back: its state is a running sum, and what it gives is that sum.

    .. math:: b \leftarrow decay \cdot b + inflow(d), \qquad d \leftarrow b

    Attributes:
        decay: the name of the decay in ``Rule.hypers``.
        inflow: ``(direction, values, at) -> tree``.
    """

    decay: str
    inflow: Callable[[Tree, Values, StepInfo], Tree]


@dataclass(frozen=True)
class Rule:
    """How the descent direction is changed on its way to theta.

    Attributes:
        name: what its numbers are filed under: ``sgd.lr``.
        hypers: its numbers, by name.
        update: ``(direction, state, theta, values, at) -> (direction, state)``, a pure function.
        init: ``theta -> state``, a flat tree; a rule without memory leaves the default.
        random: whether it draws random numbers, from ``at.key``.
        origin: filled in by :func:`part`.
        sums: how its state is undone, where it can be (``Adjoint(store="reverse")``).
        direct: whether what it gives depends on the direction, its numbers and the moment alone, not on theta or a
            state: then it may follow a running sum in a chain that is undone.
    """

    name: str
    hypers: Mapping[str, Parameterised]
    update: Callable[[Tree, Tree, Tree, Values, StepInfo], tuple[Tree, Tree]]
    init: Callable[[Tree], Tree] = field(default=stateless)
    random: bool = False
    origin: Origin | None = None
    sums: RunningSum | None = None
    direct: bool = False


@dataclass(frozen=True)
class Term:
    """What is added to the support loss, or stands in its place.

    Attributes:
        name: what its numbers are filed under.
        hypers: its numbers, by name.
        value: ``(values, scene) -> scalar``.
        alone: whether it takes the place of the support loss.
        anchored: whether it looks at theta0, as a pull towards it does. A term that says no, and does, has a wrong
            derivative.
        random: whether it draws random numbers, from ``scene.at.key``.
        origin: filled in by :func:`part`.
    """

    name: str
    hypers: Mapping[str, Parameterised]
    value: Callable[[Values, TermInputs], Tensor]
    alone: bool = False
    anchored: bool = True
    random: bool = False
    origin: Origin | None = None


@dataclass(frozen=True)
class Start:
    """How the head begins on a task: made from the support set, for as many classes as it has.

    Attributes:
        name: what its numbers are filed under.
        hypers: its numbers, by name.
        head: ``(values, features) -> (weight (C, d), bias (C,))``.
        origin: filled in by :func:`part`.
    """

    name: str
    hypers: Mapping[str, Parameterised]
    head: Callable[[Values, Features], tuple[Tensor, Tensor]]
    origin: Origin | None = None


class GateFunction(Protocol):
    """How inputs come through a gate."""

    def __call__(self, values: Values, inputs: Tensor, *, layer: str, at: StepInfo) -> Tensor:
        """Return inputs of the same shape."""
        ...


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


@dataclass(frozen=True)
class Gate:
    """What the inputs of layers come through while the support set passes through the model, in every inner step.

    Queries, and predictions of the adapted model, do not come through it.

    Attributes:
        name: what its numbers are filed under.
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

    def among(self, theta: Tree) -> list[str]:
        """Return the layers that it stands before.

        Raises:
            UsageError: if there are none.
        """
        layers = list(dict.fromkeys(_layer(name) for name in theta))
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
        return replace(factory(*arguments, **options), origin=Origin(factory.__name__, dict(given.arguments)))

    return make


@dataclass(frozen=True)
class Strategy:
    """Rules, terms, gates and at most one start, in order; made by :func:`chain`."""

    parts: tuple[Part, ...]

    @property
    def rules(self) -> list[Rule]:
        """The rules, in the order in which the direction passes them."""
        return [part for part in self.parts if isinstance(part, Rule)]

    @property
    def terms(self) -> list[Term]:
        """The terms of the inner objective."""
        return [part for part in self.parts if isinstance(part, Term)]

    @property
    def gates(self) -> list[Gate]:
        """The gates, in the order in which inputs pass them."""
        return [part for part in self.parts if isinstance(part, Gate)]

    @property
    def anchored(self) -> bool:
        """Whether a term looks at theta0."""
        return any(term.anchored for term in self.terms)

    @property
    def start(self) -> Start | None:
        """What makes the head from the support set, if anything does."""
        return next((part for part in self.parts if isinstance(part, Start)), None)

    @property
    def random(self) -> bool:
        """Whether a part draws random numbers."""
        return any(part.random for part in self.parts if not isinstance(part, Start))

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> tuple[Tree, Tree]:
        """Return phi for parameters like ``theta``: the learned leaves and the fixed, named ``sgd.lr/conv.weight``."""
        learned: Tree = {}
        fixed: Tree = {}
        for part in self.parts:
            for name, quantity in part.hypers.items():
                leaves = prefixed(quantity.initial(theta, steps, generator), f"{part.name}.{name}")
                (learned if quantity.learn else fixed).update(leaves)
        return learned, fixed

    def values(self, part: Part, phi: Tree, theta: Tree, t: Step) -> Values:
        """Return the numbers of one part at step ``t``."""
        values: dict[str, Tree] = {}
        for name, quantity in part.hypers.items():
            whole = f"{part.name}.{name}"
            leaves = {
                key[len(whole) :]: leaf for key, leaf in phi.items() if key == whole or key.startswith(f"{whole}/")
            }
            values[name] = quantity.at(leaves, theta, t)
        return values

    def init(self, theta: Tree) -> Tree:
        """Return the state before the first step, filed under the names of the rules."""
        state: Tree = {}
        for rule in self.rules:
            state |= prefixed(rule.init(theta), f"{rule.name}/")
        # Running means in bfloat16 do not move: 1 - 0.999 is below its resolution.
        return {name: at_least_float32(leaf) for name, leaf in state.items()}

    def head(self, theta: Tree, phi: Tree, features: Features) -> tuple[Tensor, Tensor]:
        """Return the head that the start makes: weight ``(C, d)`` and bias ``(C,)``."""
        assert self.start is not None
        return self.start.head(self.values(self.start, phi, theta, 0), features)

    def update(self, grads: Tree, state: Tree, theta: Tree, phi: Tree, at: StepInfo) -> tuple[Tree, Tree]:
        """Pass the gradient through all rules and return the next theta and the next state."""
        direction: Tree = grads
        next_state: Tree = {}
        for rule in self.rules:
            own = under(state, f"{rule.name}/")
            direction, own = rule.update(direction, own, theta, self.values(rule, phi, theta, at.t), at)
            next_state |= prefixed(own, f"{rule.name}/")
        # A step number that is a tensor is in double precision, and must not widen parameters of one number.
        return tmap(lambda leaf, d: leaf - d.to(leaf.dtype), theta, direction), next_state

    def objective(self, phi: Tree, scene: TermInputs) -> Tensor:
        """Return the support loss, or the terms that take its place, plus all other terms."""
        total = torch.zeros(()) if any(term.alone for term in self.terms) else scene.objective()
        for term in self.terms:
            total = total + term.value(self.values(term, phi, scene.theta, scene.at.t), scene)
        return total

    def gated(self, phi: Tree, theta: Tree, at: StepInfo) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
        """Return the gated layers by name, each with what its inputs come through, in order."""
        gated: list[tuple[str, Callable[[Tensor], Tensor]]] = []
        for gate in self.gates:
            for layer in gate.among(theta):
                own = {name: leaf for name, leaf in theta.items() if _layer(name) == layer}
                values = self.values(gate, phi, own, at.t)
                gated.append((layer, partial(gate.apply, values, layer=layer, at=at)))
        return gated

    def of(self, phi: Tree, kind: type[Part]) -> Tree:
        """Return the leaves of phi that belong to parts of one kind."""
        parts = [part for part in self.parts if isinstance(part, kind)]
        return pick(phi, [name for part in parts for name in phi if name.startswith(f"{part.name}.")])


def chain(*parts: Part | Strategy) -> Strategy:
    """Put rules, terms and a start together; strategies among them are laid open.

    Raises:
        UsageError: if there is none, two have the same name (their numbers would be one), or there are two starts.
    """
    flat: list[Part] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Strategy) else (part,))
    names = [part.name for part in flat]
    if not flat:
        raise UsageError("a strategy needs at least one rule, such as sgd(0.1)")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two parts of a strategy are named {', '.join(twice)}: give one of them another name=")
    starts = [part.name for part in flat if isinstance(part, Start)]
    if len(starts) > 1:
        raise UsageError(f"{' and '.join(starts)} would both make the head: keep one of them")
    return Strategy(tuple(flat))
