"""The learner: puts a model, a strategy and a task together into an inner loop, and holds what is learned across tasks.

Shapes: B tasks, n examples of one task, C classes ("ways"), T inner steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml.autodiff import WHOLE, Compiled, OverTasks, Shard
from rbml.autodiff import module as modules
from rbml.data.batch import Batch, Inputs
from rbml.data.targets import Loss, Metric
from rbml.errors import UsageError
from rbml.hypergrad import Hypergradient, MetaGradient
from rbml.inner import Inner
from rbml.learner.adapted import Adapted, adapt
from rbml.learner.binding import BoundTask, Plan, Statistics, check_statistics
from rbml.learner.checks import Predict, check_loss
from rbml.learner.evaluation import Evaluation, evaluate
from rbml.learner.initial import prepare
from rbml.learner.meta import meta_gradient, step_weights
from rbml.learner.options import Curriculum, Execution, Initial, Phase, curriculum_of
from rbml.learner.phi import check_rules, start_of_phi, with_strategy
from rbml.strategy import Part, Strategy, chain, sgd
from rbml.tasks import Episode, Task
from rbml.tree import Tree, detach, prefixed


class Learner(nn.Module):
    """A model that has learned how to learn: its parameters are theta0 (``model.*``) and phi (``phi.*``).

    Both are learned by the same backpropagation: give ``learner.parameters()`` to any ``torch.optim`` optimizer and
    call :meth:`backward`. ``state_dict()`` is the checkpoint.

    Args:
        model: any ``nn.Module``; it is copied and left untouched. Parameters with ``requires_grad=False`` stay as they
            are.
        strategy: how one step changes theta; a single rule is enough. ``None`` means ``sgd(0.1)``.
        steps: T, how many inner steps.
        loss: a function from (prediction, target) of one task to a scalar.
        initial: where theta begins, and which part of it a task may change.
        hypergradient: the engine, a :class:`Phase`, or a :class:`Curriculum` of phases; ``None`` means ``Adjoint()``.
        statistics: which statistics batch norm uses on the query batch: those of the query batch
            (``"transductive"``, as most papers do), those of the support batch (``"inductive"``), or the model's
            stored ones, in the inner loop too (``"running"``).
        execution: chunk size, compilation, vectorisation and verification.

    Attributes:
        adapted: the parameters that a task adapts, by name.
        head: the parameters that have one row per class, by name; empty if there is no head.
        ways: for how many classes the head is; ``None`` if there is no head.
        stepwise: the parameters that have one value per step, by name.

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
        """Copy the model, and set phi to its start."""
        super().__init__()
        if steps < 0:
            raise UsageError(f"steps must be at least 0, not {steps}")
        check_loss(loss, model)
        self.model = modules.isolated(model)
        self.strategy = chain(sgd(0.1) if strategy is None else strategy)
        check_rules(self.strategy, steps)
        check_statistics(statistics, self.model)
        self.steps, self.loss, self.initial, self.statistics = steps, loss, initial, statistics
        self.curriculum = curriculum_of(hypergradient)
        resolved = prepare(self.model, initial, steps, made=self.strategy.start is not None)
        self.adapted, self.head, self.ways, self.stepwise = resolved
        self.phi = start_of_phi(self, None)
        self.run(execution)

    @property
    def plan(self) -> Plan:
        """What is the same for every task."""
        return Plan(self.model, self.strategy, self.steps, self.loss, self.adapted, self.head, self.stepwise)

    @property
    def hypergradient(self) -> Hypergradient:
        """The engine at the end of training; setting it replaces any curriculum by one phase."""
        return self.phase(1.0).hypergradient

    @hypergradient.setter
    def hypergradient(self, engine: Hypergradient) -> None:
        """Replace any curriculum by one engine."""
        self.curriculum = curriculum_of(Phase(engine, self.phase(1.0).step_weights))

    def phase(self, progress: float) -> Phase:
        """Return the engine and the step weights at a point of training, from 0 (start) to 1 (end)."""
        return self.curriculum.phase(progress)

    def run(self, execution: Execution) -> None:
        """Change how the work is run; nothing that is learned changes."""
        self.execution = execution
        self.compiled = None if execution.compile in ("no", "auto") else Compiled(execution.compile != "trace")
        self.over_tasks = OverTasks(execution.chunk, execution.vectorise)
        self.verified: set[Any] = set()
        self.tried: dict[Any, Any] = {}

    def with_strategy(self, strategy: Strategy | Part, generator: torch.Generator | None = None) -> Learner:
        """Return a copy of the learner with another strategy, whose phi is at its start; theta0 is kept.

        Args:
            strategy: the strategy.
            generator: for starts that are drawn at random; ``None`` means PyTorch's global generator.

        Raises:
            UsageError: if the strategy has no rule to take steps with, or makes a head that is not adapted.
        """
        return with_strategy(self, strategy, generator)

    def meta_gradient(
        self,
        tasks: Task,
        warm: Tree | None = None,
        phase: Phase | None = None,
        ways: int | None = None,
        shard: Shard = WHOLE,
    ) -> MetaGradient:
        """Return the mean query loss over the tasks and its derivative with respect to every parameter of the learner.

        Args:
            tasks: a stack of tasks.
            warm: where the solver of ``Implicit`` begins, for a learner that sees the same tasks again and again:
                ``{}`` at first, then ``under(result.info, "solution.")`` of the last call. ``None`` begins at zero.
            phase: the engine and the step weights; ``None`` means those of the end of training.
            ways: C; the default is the learner's own.
            shard: which tasks these are of those that several processes compute together; ``loss`` and ``grads`` of the
                result are then the means over all of them, and ``aux`` and ``info`` are of these.

        Returns:
            ``grads`` has the names of ``named_parameters()``; ``aux`` has ``loss`` ``(B,)`` and ``prediction``
            ``(B, n, ...)``; ``info`` is what the engine reports, with the tasks as the first dimension.

        Raises:
            UsageError: if the tasks do not fit the model, or ``warm`` does not fit the engine.
            BlindError: if the engine cannot give the derivative of a parameter.
            UnsoundError: if the engine's derivative is wrong for this model (checked once per shape of tasks).
        """
        return meta_gradient(self, tasks, warm, phase, ways, shard)

    def backward(
        self, tasks: Task, warm: Tree | None = None, phase: Phase | None = None, shard: Shard = WHOLE
    ) -> MetaGradient:
        """Add the meta-gradient to ``.grad`` of the parameters, as ``loss.backward()`` does, and return it."""
        result = self.meta_gradient(tasks, warm, phase, shard=shard)
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
        shard: Shard = WHOLE,
    ) -> Evaluation:
        """Adapt to every task and measure the result before and after each inner step.

        Args:
            tasks: a stack of tasks.
            statistics: as in :class:`Learner`; the default is the learner's own.
            steps: how many inner steps; the default is the learner's own.
            ways: how many classes; the default is the learner's own.
            each_step: whether to measure before and after every step, or only after the last one, which is faster.
            metrics: what to measure besides the loss; ``None`` means the accuracy if the targets are classes.
            shard: which tasks these are of those that several processes measure together; the result is of these.

        Raises:
            UsageError: if the tasks do not fit the model.
        """
        return evaluate(self, tasks, statistics, steps, ways, each_step, metrics, shard)

    def adapt(
        self,
        x: Inputs,
        y: Tensor,
        mask: Tree | None = None,
        statistics: Statistics | None = None,
        ways: int | None = None,
    ) -> Adapted:
        """Adapt to one task and return the adapted model.

        Args:
            x: support examples ``(n, ...)``.
            y: their targets ``(n, ...)``; classes are ``0 .. C-1``.
            mask: which of them count, as in :class:`rbml.Batch`: ``learner.adapt(*batch)``.
            statistics: as in :class:`Learner`. The default, ``"inductive"`` (or the learner's ``"running"``), makes a
                prediction independent of the other examples in its batch.
            ways: C; the default is the learner's own, or ``y.max() + 1`` if that is more.

        Raises:
            UsageError: if the examples do not fit the model.
        """
        return adapt(self, Batch(x, y, mask or {}), statistics, ways)

    def inner(
        self, task: Task, statistics: Statistics | None = None, ways: int | None = None, key: Tensor | None = None
    ) -> Inner:
        """Return the inner loop of one task, for an engine or for inspection.

        Its functions take any part of the parameters as ``m``; for the rest the learner's own values are used, as
        constants. Parts of the strategy that draw random numbers use ``key``, an integer.

        Raises:
            UsageError: if the model has no such statistics, or no head for that many classes.
        """
        weights = step_weights(self, self.phase(1.0), task.query.y.device)
        return self.bind(task, statistics, ways, weights, key).inner()

    def bind(
        self,
        task: Any,
        statistics: Statistics | None = None,
        ways: int | None = None,
        step_weights: Tensor | None = None,
        key: Tensor | None = None,
        dropping: bool = False,
    ) -> BoundTask:
        """Return one task bound to the learner; arguments as in :meth:`inner` and :class:`BoundTask`."""
        statistics = self.statistics if statistics is None else statistics
        check_statistics(statistics, self.model)
        if ways is not None and ways != self.ways and not self.head:
            raise UsageError(f"the model has no head that could start for {ways} classes: name it with head=")
        own = detach(dict(self.named_parameters())) | prefixed(dict(self.phi.named_buffers()), "phi.")
        return BoundTask(self.plan, own, task, statistics, ways or self.ways, step_weights, key, dropping)

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters; ``learner.to(device)`` moves the learner, as any module."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of the model's parameters."""
        return next(self.model.parameters()).dtype

    def predict(self, ways: int | None) -> Predict:
        """Return the unadapted model, for checks."""
        none = Batch(torch.empty(0), torch.empty(0))
        bound = BoundTask(self.plan, detach(dict(self.named_parameters())), Episode(none, none), "transductive", ways)
        return lambda x: modules.call(self.model, bound.whole({}, {}, 0), x)
