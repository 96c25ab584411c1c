"""The inner loop of one task, put together from a model, a strategy and the task's examples.

Every function here is pure in the meta-parameters ``m`` (``model.*``: theta0, ``phi.*``: phi). ``m`` may hold any part
of them; for the rest the learner's own values are used, as constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rbml import random
from rbml.autodiff import module
from rbml.data.batch import Batch, hide_classes
from rbml.data.targets import Loss
from rbml.errors import UsageError, unknown
from rbml.inner import Carry, Inner, Undo
from rbml.models.dropout import Change, changes
from rbml.operators import Differentiable
from rbml.strategy import Features, Gate, Part, Rule, Start, StepInfo, Strategy, Term, TermInputs
from rbml.strategy.undo import split
from rbml.strategy.views import masked_loss
from rbml.tasks.base import arrivals
from rbml.tree import Step, Tree, add, pick, row, under

Statistics = Literal["transductive", "inductive", "running"]

RUNNING_LOSS = "query loss"
"""The key in the carry's state of the weighted sum of query losses so far."""


@dataclass(frozen=True)
class Plan:
    """What is the same for every task of a learner.

    Attributes:
        model: an isolated module (:mod:`rbml.autodiff.module`).
        strategy: how one step changes theta.
        steps: T, inner steps.
        loss: from (prediction, target) to a scalar.
        adapted: the parameters that a task adapts.
        head: the parameters that have one row per class.
        stepwise: the parameters that have one value per step: a leading dimension 0 .. T.
    """

    model: nn.Module
    strategy: Strategy
    steps: int
    loss: Loss
    adapted: list[str]
    head: list[str]
    stepwise: list[str]


@dataclass(frozen=True)
class BoundTask:
    """The inner loop of one task.

    Attributes:
        plan: what all tasks share.
        own: the learner's parameters, ``model.*`` and ``phi.*``, as constants.
        task: the data of each step, and the queries.
        statistics: which statistics batch norm uses on the queries.
        ways: C; ``None`` means one class per output of the model.
        step_weights: ``(T,)``, the weight of the query loss after each step; ``None`` counts the last step only.
        key: an integer seed for parts of the strategy that draw random numbers.
        dropping: whether the model's ``Dropout`` layers drop, with this key: while training across tasks.
    """

    plan: Plan
    own: Tree
    task: Any
    statistics: Statistics
    ways: int | None
    step_weights: Tensor | None = None
    key: Tensor | None = None
    dropping: bool = False

    def inner(self) -> Inner:
        """Return the inner loop in the form that an engine differentiates."""
        return Inner(self.start, self.objective, self.update, self.outer, self.plan.steps, self.enters(), self.undo)

    def enters(self) -> dict[str, frozenset[str]]:
        """Return which of the four functions below depend on each meta-parameter."""
        strategy = self.plan.strategy
        terms = {"objective"} if strategy.anchored else set()  # a term sees theta0
        by_steps = {"update"} if self.step_weights is not None else set()
        by_start = {"start"} | terms if strategy.start is not None else set()
        adapted, shared = {"start"} | terms, {"objective", "outer"} | by_steps | by_start
        enters = {name: adapted if name in self.plan.adapted else shared for name in under(self.own, "model.")}
        found = {f"model.{name}": frozenset(where) for name, where in enters.items()}
        phi = under(self.own, "phi.")
        kinds: list[tuple[type[Part], set[str]]]
        kinds = [(Rule, {"update"}), (Term, {"objective"}), (Gate, {"objective"}), (Start, {"start"} | terms)]
        return found | {f"phi.{name}": frozenset(where) for kind, where in kinds for name in strategy.of(phi, kind)}

    # ------------------------------------------------------------------------------------- the four functions of Inner

    def start(self, m: Tree) -> Carry:
        """Return the carry before the first step: theta0, with a head for the task, and an empty state."""
        theta = self.plan.strategy.before(self._theta0(m), self._info(0))
        state = self.plan.strategy.init(theta)
        if self.step_weights is not None:
            state[RUNNING_LOSS] = self.step_weights.new_zeros(())
        return Carry(theta, state)

    def objective(self, theta: Tree, m: Tree, t: Step) -> Tensor:
        """Return the support loss of step ``t`` plus the strategy's terms."""
        batch, at = self.task.at(t), self._info(t)
        gated = self.plan.strategy.gated(self._phi(m), theta, at)
        gated = [*gated, *self._dropped("support", t)]
        prediction = self.predict(self.whole(theta, m, t), batch, self._stored(), gated)
        with Differentiable():
            if not self.plan.strategy.terms:
                return self.loss(prediction, batch)
            theta0 = self._theta0(m) if self.plan.strategy.anchored else theta  # making a head costs a forward pass
            seen = TermInputs(theta, theta0, batch.x, batch.y, prediction, self.plan.loss, at, batch.mask)
            return self.plan.strategy.objective(self._phi(m), seen)

    def update(self, grads: Tree, carry: Carry, m: Tree, t: Step) -> Carry:
        """Pass the gradient through the strategy's rules."""
        theta, state = self.plan.strategy.update(grads, carry.state, carry.theta, self._phi(m), self._info(t))
        state = state | add(pick(carry.state, [RUNNING_LOSS]), self._gain(theta, m, t))
        return Carry(self.plan.strategy.before(theta, self._info(t + 1)), state)

    def outer(self, carry: Carry, m: Tree) -> tuple[Tensor, Tree]:
        """Return the query loss after the last step (or the weighted sum over the steps), and the prediction."""
        loss, prediction = self.measure(carry.theta, m, self.plan.steps)
        if self.step_weights is not None and self.plan.steps:
            loss = carry.state[RUNNING_LOSS] + self.step_weights[-1] * loss
        return loss, {"prediction": prediction}

    # ----------------------------------------------------------------------------------------- building blocks of these

    def measure(self, theta: Tree, m: Tree, t: Step) -> tuple[Tensor, Tensor]:
        """Return the query loss and the query predictions of ``theta`` after ``t`` steps."""
        whole = self.whole(theta, m, t)
        dropped = self._dropped("query", t)
        prediction = self.predict(whole, self.task.query, self.fitted_statistics(whole), dropped)
        with Differentiable():
            return self.loss(prediction, self.task.query), prediction

    def predict(self, whole: Tree, batch: Batch, statistics: Tree | None, gated: Any = ()) -> Tensor:
        """Return the prediction for a batch; classes that the task does not have get no probability."""
        counts = batch.mask.get("example")
        return hide_classes(module.call(self.plan.model, whole, batch.x, statistics, gated, counts), batch)

    def loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        """Return the loss; with a mask, the mean over the examples that count."""
        return masked_loss(self.plan.loss, prediction, batch.y, batch.mask)

    def whole(self, theta: Tree, m: Tree, t: Step) -> Tree:
        """Return all parameters of the model at step ``t``: theta where it is adapted, those of ``m`` elsewhere."""
        others = {name: leaf for name, leaf in under(self.own | m, "model.").items() if name not in theta}
        for name in self.plan.stepwise:
            others[name] = row(others[name], t)
        return {name: self._for_ways(leaf, name) for name, leaf in others.items()} | theta

    def fitted_statistics(self, whole: Tree) -> Tree | None:
        """Return the statistics that batch norm uses on queries; ``None`` means those of the query batch itself."""
        if self.statistics == "inductive":
            support = self.task.support
            return module.statistics_of(self.plan.model, whole, support.x, support.mask.get("example"))
        return self._stored()

    def undo(self) -> Undo:
        """Return how a step is undone.

        Raises:
            UsageError: naming the rule whose step cannot be undone.
        """
        parts = split(self.plan.strategy)
        like = self.start({}).theta

        def decay(m: Tree, t: int) -> Tree:
            return parts.decay(self._phi(m), like, t)

        def inflow(grads: Tree, theta: Tree, m: Tree, t: int) -> Tree:
            return parts.inflow(grads, theta, self._phi(m), self._info(t))

        def outflow(sums: Tree, m: Tree, t: int) -> Tree:
            return parts.outflow(sums, self._phi(m), self._info(t))

        return Undo(decay, inflow, outflow, self._gain, parts.ratio, parts.span)

    def _gain(self, theta: Tree, m: Tree, t: Step) -> Tree:
        """Return what the step that ended in ``theta`` adds to the weighted sum of query losses, if there is one."""
        if self.step_weights is None:
            return {}
        last = t + 1 >= self.plan.steps  # the last query loss is added by ``outer``
        if last is True:
            return {RUNNING_LOSS: self.step_weights.new_zeros(())}
        loss, _ = self.measure(theta, m, t + 1)
        gain = row(self.step_weights, t) * loss
        return {RUNNING_LOSS: gain if last is False else torch.where(last, 0, gain)}

    def _stored(self) -> Tree | None:
        return module.running_statistics(self.plan.model) if self.statistics == "running" else None

    def _dropped(self, part: str, t: Step) -> list[tuple[str, Change]]:
        """Return what the model's ``Dropout`` layers do to their inputs in one pass."""
        if not self.dropping:
            return []
        assert self.key is not None, "what drops has a key"
        return changes(self.plan.model, random.fold(random.fold(self.key, t), 1 if part == "query" else 0))

    def _phi(self, m: Tree) -> Tree:
        return under(self.own | m, "phi.")

    def _info(self, t: Step) -> StepInfo:
        return StepInfo(t, self.plan.steps, self.key, self._arrivals)

    @cached_property
    def _arrivals(self) -> Tensor | None:
        """When the classes of the task come, where a rule asks for it: the same at every step."""
        y, head = self.task.support.y, self.plan.head
        if not self.plan.strategy.by_class or not head or y.is_floating_point() or y.dim() != 1:
            return None
        return arrivals(self.task, self.ways or len(self.own[f"model.{head[0]}"]))

    def _theta0(self, m: Tree) -> Tree:
        theta0 = pick(under(self.own | m, "model."), self.plan.adapted)
        theta = {name: self._for_ways(leaf, name) for name, leaf in theta0.items()}
        if self.plan.strategy.start is None:
            return theta
        layer = head_layer(self.plan.model, self.plan.head)
        support, whole = self.task.support, self.whole(theta, m, 0)
        counts = support.mask.get("example")
        seen = module.inputs_of(self.plan.model, whole, support.x, layer, self._stored(), counts)
        features = Features(seen, support.y, len(theta[f"{layer}.weight"]), counts)
        made = self.plan.strategy.head(theta, self._phi(m), features)
        return theta | dict(zip((f"{layer}.weight", f"{layer}.bias"), made, strict=True))

    def _for_ways(self, leaf: Tensor, name: str) -> Tensor:
        """Return a head parameter with one row per class: its first rows, or, for more classes, its rows repeated."""
        if self.ways is None or name not in self.plan.head or leaf.shape[0] == self.ways:
            return leaf
        return leaf[torch.arange(self.ways, device=leaf.device) % leaf.shape[0]]


def head_layer(model: nn.Module, head: list[str]) -> str:
    """Return the name of the linear layer, with weight and bias, that is the head.

    Raises:
        UsageError: if there is no such layer, so that no start could make the head.
    """
    layers = {name.rpartition(".")[0] for name in head}
    layer = model.get_submodule(layers.pop()) if len(layers) == 1 else None
    if not isinstance(layer, nn.Linear) or len(head) != 2:
        found = ", ".join(head) or "nothing"
        raise UsageError(f"a head made from the support set needs one nn.Linear with a bias; head= has {found}")
    return head[0].rpartition(".")[0]


def check_statistics(statistics: str, model: nn.Module | None = None) -> None:
    """Refuse an unknown choice of batch-norm statistics, or one that the model does not keep.

    Raises:
        UsageError: naming the choice, or the layers that keep no statistics.
    """  # noqa: DOC501  `unknown` returns the UsageError
    if statistics not in get_args(Statistics):
        raise unknown("choice of batch-norm statistics", statistics, get_args(Statistics))
    if model is not None and statistics == "running" and (without := module.without_statistics(model)):
        raise UsageError(f"{', '.join(without)} of the model keeps no running statistics: use another choice")
