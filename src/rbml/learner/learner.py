"""The learner binds a model, a strategy and a task into an inner loop, and owns what is learned across tasks.

Shapes: B tasks, n examples of one task, C classes ("ways"), T inner steps.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.autodiff import Compiled, OverTasks
from rbml.autodiff import module as modules
from rbml.data.batch import Batch, Inputs
from rbml.data.targets import Loss, Metric
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Hypergradient, MetaGradient
from rbml.inner import Inner, roll
from rbml.learner.adapted import Adapted
from rbml.learner.binding import BoundTask, Plan, Statistics, check_statistics
from rbml.learner.checks import Predict, check_batch, check_tasks, explained
from rbml.learner.evaluation import Evaluation, measured
from rbml.learner.frozen import FrozenBody, frozen_body
from rbml.learner.initial import leave_head_to_support, prepare
from rbml.learner.meta import meta_gradient
from rbml.learner.options import Curriculum, Execution, Initial, Phase
from rbml.strategy import Part, Strategy, chain, sgd
from rbml.tasks import Episode, Task
from rbml.tasks.base import count, one
from rbml.tree import Tree, pick, prefixed


class Learner(nn.Module):
    """A model that has learned how to learn: its parameters are theta0 (``model.*``) and phi (``phi.*``).

    Both are learned by the same backpropagation: give ``learner.parameters()`` to any ``torch.optim`` optimizer and
    call :meth:`backward`. ``state_dict()`` is the checkpoint.

    Args:
        model: any ``nn.Module``; it is copied and left untouched. Parameters with ``requires_grad=False`` stay as they
            are.
        strategy: how one step changes theta; a single rule will do. ``None`` is ``sgd(0.1)``.
        steps: T, how many inner steps.
        loss: from (prediction, target) of one task to a scalar.
        initial: where theta begins and what a task may change of it.
        hypergradient: the engine, a :class:`Phase`, or a :class:`Curriculum` of phases; ``None`` is ``Adjoint()``.
        statistics: whose statistics batch norm uses on the query batch: its own (``"transductive"``, the custom of the
            papers), those of the adapted support batch (``"inductive"``) or the model's stored ones, in the inner loop
            too (``"running"``).
        execution: how the work is run.

    Raises:
        UsageError: if a pattern matches no parameter or an option is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        strategy: Strategy | Part | None = None,
        steps: int = 1,
        loss: Loss = F.cross_entropy,
        initial: Initial = Initial(),  # noqa: B008  frozen
        hypergradient: Hypergradient | Phase | Curriculum | None = None,
        statistics: Statistics = "transductive",
        execution: Execution = Execution(),  # noqa: B008
    ) -> None:
        """Copy the model, and start phi."""
        super().__init__()
        if steps < 0:
            raise UsageError(f"steps must be at least 0, not {steps}")
        if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
            raise UsageError("the loss has parameters: learned by this loss itself they would only make it small")
        self.model = modules.isolated(model)
        self.strategy = chain(sgd(0.1) if strategy is None else strategy)
        _check_rules(self.strategy, steps)
        check_statistics(statistics, self.model)
        self.steps, self.loss, self.initial, self.statistics = steps, loss, initial, statistics
        self.curriculum = _curriculum(hypergradient)
        self.resolved = prepare(self.model, initial, steps, made=self.strategy.start is not None)
        self.phi = self._start_of_phi(None)
        self.run(execution)

    @property
    def adapted(self) -> list[str]:
        """The parameters that a task adapts, by name."""
        return self.resolved.adapted

    @property
    def head(self) -> list[str]:
        """The parameters that have one row per class, by name; empty where there is no head."""
        return self.resolved.head

    @property
    def ways(self) -> int | None:
        """For how many classes the head is; ``None`` without one."""
        return self.resolved.ways

    @property
    def plan(self) -> Plan:
        """What is the same for every task."""
        own = self.resolved
        return Plan(self.model, self.strategy, self.steps, self.loss, own.adapted, own.head, own.stepwise)

    @property
    def hypergradient(self) -> Hypergradient:
        """The engine at the end of training; setting it puts one phase in the place of any curriculum."""
        return self.phase(1.0).hypergradient

    @hypergradient.setter
    def hypergradient(self, engine: Hypergradient) -> None:
        """Put one engine in the place of any curriculum."""
        self.curriculum = _curriculum(Phase(engine, self.phase(1.0).step_weights))

    def phase(self, progress: float) -> Phase:
        """Return the engine and the weights of the steps for a part of training, from 0 to 1."""
        return self.curriculum.phase(progress)

    def run(self, execution: Execution) -> None:
        """Choose anew how the work is run; nothing that is learned changes."""
        self.execution = execution
        self.compiled = None if execution.compile == "no" else Compiled()
        self.over_tasks = OverTasks(execution.chunk, execution.vectorise)
        self.verified: set[Any] = set()

    def with_strategy(self, strategy: Strategy | Part, generator: torch.Generator | None = None) -> Learner:
        """Return a copy of the learner with another strategy, whose phi is at its start; theta0 is as it is.

        Args:
            strategy: the strategy.
            generator: for starts that are drawn at random; ``None`` is PyTorch's global one.

        Raises:
            UsageError: if the strategy has no rule to take steps with, or makes a head that is not adapted.
        """
        other, start = copy.deepcopy(self), self.strategy.start
        other.strategy = chain(strategy)
        _check_rules(other.strategy, self.steps)
        if other.strategy.start is not None:
            leave_head_to_support(other.model, self.head, self.adapted, self.initial.adapt)
        for name in self.head if start is not None and other.strategy.start is None else []:
            other.model.get_parameter(name).requires_grad_(True)
        other.phi = other._start_of_phi(generator)
        return other

    # ------------------------------------------------------------------------------------------------ across tasks

    def meta_gradient(
        self, tasks: Task, warm: Tree | None = None, phase: Phase | None = None, ways: int | None = None
    ) -> MetaGradient:
        """Return the mean query loss over the tasks and its derivative with respect to every parameter of the learner.

        Args:
            tasks: a stack of tasks.
            warm: where the solver of ``Implicit`` begins, for a learner that sees the same tasks again and again:
                ``{}`` at first, then ``under(result.info, "solution.")`` of the last call. ``None`` begins at zero.
            phase: the engine and the weights of the steps; ``None`` is what the learner has for the end of training.
            ways: C, where it is another number than the learner's.

        Returns:
            ``grads`` is named as ``named_parameters()``; ``aux`` has ``loss`` ``(B,)`` and ``prediction``
            ``(B, n, ...)``; ``info``, what the engine reports, has the tasks in front.

        Raises:
            UsageError: if the tasks do not fit the model, or ``warm`` does not fit the engine.
            BlindError: if the engine cannot see a parameter.
            UnsoundError: if the engine's derivative is wrong for this model (the first time for a shape of tasks).
        """
        phase = self.phase(1.0) if phase is None else phase
        ways = self.ways if ways is None else ways
        check_tasks(tasks, ways, self.steps, self.dtype, self._predict(ways))
        first = one(tasks, 0)
        with explained(self._predict(ways), self.loss, (first.support, first.query)):
            return meta_gradient(self, tasks, phase, ways, warm)

    def backward(self, tasks: Task, warm: Tree | None = None, phase: Phase | None = None) -> MetaGradient:
        """Add the meta-gradient to ``.grad`` of the parameters, as ``loss.backward()`` does, and return it."""
        result = self.meta_gradient(tasks, warm, phase)
        for name, parameter in self.named_parameters():
            if name in result.grads:
                grad = result.grads[name]
                parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad
        return result

    def evaluate(
        self,
        tasks: Task,
        statistics: Statistics | None = None,
        steps: int | None = None,
        ways: int | None = None,
        each_step: bool = True,
        metrics: Sequence[Metric] | None = None,
    ) -> Evaluation:
        """Learn every task and measure it before and after each inner step.

        Args:
            tasks: a stack of tasks.
            statistics: as in :class:`Learner`; the default is the learner's own.
            steps: how many inner steps; the default is the learner's own.
            ways: how many classes, where it is another number than the learner's.
            each_step: whether to measure before and after every step, or only after the last one, which is faster.
            metrics: what to measure beside the loss; ``None`` is the accuracy, where the targets are classes.

        Raises:
            UsageError: if the tasks do not fit the model.
        """
        ways = self.ways if ways is None else ways
        steps = self.steps if steps is None else steps
        check_tasks(tasks, ways, steps, self.dtype, self._predict(ways))
        first = one(tasks, 0)

        layer = frozen_body(self.bind(first, statistics, ways))

        def measure(given: tuple[Any, Tensor]) -> dict[str, Any]:
            task, key = given
            return measured(self.bind(task, statistics, ways, key=key), layer, metrics, steps, each_step)

        keys = torch.arange(count(tasks), device=tasks.query.y.device)
        with torch.no_grad(), explained(self._predict(ways), self.loss, (first.support, first.query)):
            return Evaluation(**self.over_tasks.each(measure, (tasks, keys)))

    # ------------------------------------------------------------------------------------------------ on one task

    def adapt(
        self,
        x: Inputs,
        y: Tensor,
        mask: Tree | None = None,
        statistics: Statistics | None = None,
        ways: int | None = None,
    ) -> Adapted:
        """Learn one task and return the adapted model.

        Args:
            x: support examples ``(n, ...)``.
            y: their targets ``(n, ...)``; classes are ``0 .. C-1``.
            mask: what of them counts, as of :class:`rbml.Batch`: ``learner.adapt(*batch)``.
            statistics: as in :class:`Learner`. The default, ``"inductive"`` (or the learner's ``"running"``), makes a
                prediction independent of the others in its batch.
            ways: C; the default is the learner's own, or ``y.max() + 1`` where that is more.

        Raises:
            UsageError: if the examples do not fit the model.
        """
        if statistics is None:
            statistics = "running" if self.statistics == "running" else "inductive"
        support = Batch(x, y, mask or {})
        if ways is None and self.ways is not None and isinstance(y, Tensor) and y.numel() and y.dtype == torch.int64:
            ways = max(self.ways, int(y.max()) + 1)
        check_batch(support, ways, self.dtype, self._predict(ways))
        key = torch.zeros((), dtype=torch.int64, device=y.device)
        bound = self.bind(Episode(support, support), statistics, ways, key=key)
        with explained(self._predict(ways), self.loss, (support,)), torch.no_grad():
            layer = frozen_body(bound)
            body = None if layer is None else FrozenBody(bound, layer)
            works = bound if body is None else body.on(body.features({}))
            carry = roll(works.inner(), works.start({}), {})
            whole = bound.whole(carry.theta, {}, self.steps)
            used = bound.fitted_statistics(whole)
        return Adapted(self.model, whole, used)

    def inner(
        self, task: Task, statistics: Statistics | None = None, ways: int | None = None, key: Tensor | None = None
    ) -> Inner:
        """Return the learning process of one task, for an engine or for a look inside.

        Its functions take any part of the parameters for ``m``; the others are the learner's own, as constants. Parts
        that draw random numbers draw them from ``key``, a whole number.

        Raises:
            UsageError: if the model has no such statistics, or no head for that many classes.
        """
        weights = self.step_weights(self.phase(1.0), task.query.y.device)
        return self.bind(task, statistics, ways, weights, key).inner()

    def bind(
        self,
        task: Any,
        statistics: Statistics | None = None,
        ways: int | None = None,
        step_weights: Tensor | None = None,
        key: Tensor | None = None,
    ) -> BoundTask:
        """Return one task bound to the learner; arguments as of :meth:`inner`."""
        statistics = self.statistics if statistics is None else statistics
        check_statistics(statistics, self.model)
        if ways is not None and ways != self.ways and not self.head:
            raise UsageError(f"no parameter of the model is a head that could start for {ways} classes: name it, head=")
        own = self._own() | prefixed(dict(self.phi.named_buffers()), "phi.")
        return BoundTask(self.plan, own, task, statistics, ways or self.ways, step_weights, key)

    def step_weights(self, phase: Phase, device: torch.device) -> Tensor | None:
        """Return the weights of a phase as a tensor ``(T,)``, or nothing where the last step alone counts."""
        if phase.step_weights is None:
            return None
        if len(phase.step_weights) != self.steps:
            given = len(phase.step_weights)
            raise UsageError(f"step_weights needs a number for each of the {self.steps} inner steps, not {given}")
        return torch.tensor(list(phase.step_weights), dtype=self.dtype, device=device)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the model's numbers."""
        return next(self.model.parameters()).dtype

    def _start_of_phi(self, generator: torch.Generator | None) -> nn.Module:
        theta = pick(dict(self.model.named_parameters()), self.adapted)
        for gate in self.strategy.gates:
            gate.among(theta)  # or it says what is wrong
        return _nested(*self.strategy.initial({k: v.detach() for k, v in theta.items()}, self.steps, generator))

    def _own(self) -> Tree:
        return {name: leaf.detach() for name, leaf in self.named_parameters()}

    def _predict(self, ways: int | None) -> Predict:
        """Return the unadapted model, for checks."""
        none = Batch(torch.empty(0), torch.empty(0))
        bound = BoundTask(self.plan, self._own(), Episode(none, none), "transductive", ways)
        return lambda x: modules.call(self.model, bound.whole({}, {}, 0), x)


def _curriculum(given: Hypergradient | Phase | Curriculum | None) -> Curriculum:
    if isinstance(given, Curriculum):
        return given
    phase = given if isinstance(given, Phase) else Phase(Adjoint() if given is None else given)
    return Curriculum(partial(_constant, phase))


def _constant(phase: Phase, progress: float) -> Phase:
    return phase


def _check_rules(strategy: Strategy, steps: int) -> None:
    if steps and not strategy.rules:
        raise UsageError("a strategy of terms alone sets no learning rate: add a rule, such as sgd(0.1)")


def _nested(learned: Tree, fixed: Tree) -> nn.Module:
    """Return a module whose parameters and buffers have the given dotted names."""
    root = nn.Module()
    for tree, is_learned in ((learned, True), (fixed, False)):
        for name, leaf in tree.items():
            module = root
            *path, last = name.split(".")
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            if is_learned:
                module.register_parameter(last, nn.Parameter(leaf))
            else:
                module.register_buffer(last, leaf)
    return root
