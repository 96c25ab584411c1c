"""The learner binds a model, a strategy and a task into an inner loop, and owns what is learned across tasks.

Shapes: B tasks, n examples of one task, C classes ("ways"), T inner steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml.autodiff import module
from rbml.autodiff.compiled import Compiled
from rbml.autodiff.products import mean_over_tasks
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Hypergradient, Implicit, MetaGradient
from rbml.inner import Inner, roll, step
from rbml.learner.binding import Bound, Plan, Statistics, check_statistics, head_layer
from rbml.learner.checks import Loss, check_batch, check_episodes, explained
from rbml.strategy import Part, Strategy, chain, sgd
from rbml.tasks import Batch, Episodes
from rbml.tree import Tree, matching, pick, prefixed, under


class Evaluation(NamedTuple):
    """What every task came to, before and after each inner step.

    Attributes:
        loss: query loss, ``(B, T + 1)``, or ``(B, 1)`` where only the last step was measured.
        accuracy: share of right query predictions, of the same shape; ``None`` unless the targets are classes.
        prediction: query predictions after the last step, ``(B, n, ...)``.
    """

    loss: Tensor
    accuracy: Tensor | None
    prediction: Tensor


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
        adapt: which parameters a task adapts, a pattern such as ``"head.*"``; the others are learned across tasks only.
        hypergradient: the engine; ``None`` is ``Adjoint()``.
        head: which parameters have a row a class. They let the learner start for any number of classes: fewer take the
            first rows, more take the rows again (worse than a learner that was meta-trained with so many).
        shared_head: learn one row that every class starts from (Ye and Chao 2022, arXiv:2106.16245) rather than one a
            class.
        statistics: whose statistics batch norm uses on the query batch: its own (``"transductive"``, the custom of the
            papers), those of the adapted support batch (``"inductive"``) or the model's stored ones, in the inner loop
            too (``"running"``).
        chunk: how many tasks are vectorised at once; it bounds memory.
        compile: compile the meta-gradient when it is first taken, and again for other shapes: a minute, then faster.
            Results that would be computed twice are kept, up to 256 MiB. It needs a C++ compiler;
            options that are changed later are not seen.
        stepwise: parameters that have a value of their own for every inner step and for the queries after the last one:
            learned across tasks, not adapted. MAML++'s batch norm: ``"*.norm.*"``.
        reset: adapted parameters whose start is the model's own, not learned: context parameters.
        step_weights: how much the query loss after each inner step counts, T numbers (MAML++'s multi-step loss);
            ``None`` counts the last step only. It may be set anew at any time: ``learner.step_weights = ...``.
        curriculum: what :meth:`advance` does to the learner as training goes on, such as
            :class:`rbml.algorithms.Annealing`; ``None`` is nothing.
        generator: for starts that are drawn at random; ``None`` is PyTorch's global one.

    Raises:
        UsageError: if a pattern matches no parameter or an option is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        strategy: Strategy | Part | None = None,
        steps: int = 1,
        loss: Loss = F.cross_entropy,
        adapt: str = "*",
        hypergradient: Hypergradient | None = None,
        *,
        head: str = "head.*",
        shared_head: bool = False,
        statistics: Statistics = "transductive",
        chunk: int = 32,
        compile: bool = False,
        stepwise: str = "",
        reset: str = "",
        step_weights: Sequence[float] | None = None,
        curriculum: Callable[[Learner, float], None] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """Copy the model, and start phi."""
        super().__init__()
        if steps < 0 or chunk < 1:
            raise UsageError(f"steps must be at least 0 and chunk at least 1, not {steps=} and {chunk=}")
        if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
            raise UsageError("the loss has parameters: learned by this loss itself they would only make it small")
        self.model = module.isolated(model)
        self.strategy = chain(sgd(0.1) if strategy is None else strategy)
        _check_rules(self.strategy, steps)
        check_statistics(statistics, self.model)
        self.steps, self.loss, self.chunk, self.statistics = steps, loss, chunk, statistics
        self.step_weights, self.curriculum = step_weights, curriculum
        self.compiled = Compiled() if compile else None
        self.hypergradient: Hypergradient = Adjoint() if hypergradient is None else hypergradient

        trained = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        rows = {name: (*self.model.get_parameter(name).shape, 0)[0] for name in matching(trained, head)}
        self.head = list(rows) if len(set(rows.values())) == 1 else []
        self.ways = rows[self.head[0]] if self.head else None
        if shared_head:
            self._share_head(head)
        self.stepwise = self._matching(trained, stepwise, "stepwise") if stepwise else []
        self.adapted = [name for name in self._matching(trained, adapt, "adapt") if name not in self.stepwise]
        if self.strategy.start is not None:
            self._free_head(adapt)
        for name in self._matching(self.adapted, reset, "reset") if reset else []:
            self.model.get_parameter(name).requires_grad_(False)
        for name in self.stepwise:
            leaf = self.model.get_parameter(name).detach()
            module.put(self.model, name, nn.Parameter(torch.stack([leaf] * (steps + 1))))
        self.phi = self._start_of_phi(generator)

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
            other._free_head("|".join(self.adapted))
        for name in self.head if start is not None and other.strategy.start is None else []:
            other.model.get_parameter(name).requires_grad_(True)
        other.phi = other._start_of_phi(generator)
        return other

    def _start_of_phi(self, generator: torch.Generator | None) -> nn.Module:
        theta = pick(dict(self.model.named_parameters()), self.adapted)
        for gate in self.strategy.gates:
            gate.among(theta)  # or it says what is wrong
        return _nested(*self.strategy.initial({k: v.detach() for k, v in theta.items()}, self.steps, generator))

    @staticmethod
    def _matching(names: list[str], pattern: str, option: str) -> list[str]:
        if found := matching(names, pattern):
            return found
        raise UsageError(f"{option}={pattern!r} matches no parameter of the model; it has {', '.join(names) or 'none'}")

    def _free_head(self, adapt: str) -> None:
        """Leave the head to the support set: what the model has there is not used, and so not learned."""
        head_layer(self.model, self.head)
        if not set(self.head) <= set(self.adapted):
            raise UsageError(f"the head is made from the support set: adapt={adapt!r} must match {self.head[0]} too")
        for name in self.head:
            self.model.get_parameter(name).requires_grad_(False)

    @property
    def plan(self) -> Plan:
        """What is the same for every task."""
        return Plan(self.model, self.strategy, self.steps, self.loss, self.adapted, self.head, self.stepwise)

    def _share_head(self, pattern: str) -> None:
        """Replace the head's rows by their mean: the one row from which every class starts."""
        if not self.head:
            raise UsageError(f"shared_head needs a head, and head={pattern!r} matches no parameter of the model")
        for name in self.head:
            rows = self.model.get_parameter(name).detach()
            module.put(self.model, name, nn.Parameter(rows.mean(0, keepdim=True)))

    # ------------------------------------------------------------------------------------------------ across tasks

    def meta_gradient(self, episodes: Episodes, warm: Tree | None = None) -> MetaGradient:
        """Return the mean query loss over the tasks and its derivative with respect to every parameter of the learner.

        Args:
            episodes: the tasks.
            warm: where the solver of ``Implicit`` begins, for a learner that sees the same tasks again and again:
                ``{}`` at first, then ``under(result.info, "solution.")`` of the last call. ``None`` begins at zero.

        Returns:
            ``grads`` is named as ``named_parameters()``; ``aux`` has ``loss`` ``(B,)`` and ``prediction``
            ``(B, n, ...)``; ``info``, what the engine has to say for itself, has the tasks in front.

        Raises:
            UsageError: if the episodes do not fit the model, or ``warm`` does not fit the engine.
            BlindError: if the engine cannot see a parameter.
        """
        check_episodes(episodes, self.ways, self._dtype(), self._predict(self.ways))
        m = {name: leaf.detach() for name, leaf in self.named_parameters() if leaf.requires_grad}

        weights = self._step_weights(episodes.query.x.device)
        engine: Any = self.hypergradient
        if warm is not None and not isinstance(engine, Implicit):
            raise UsageError(f"warm= is for the engine Implicit, and this is {engine}: leave it out")

        def one(m: Tree, *task: Tensor) -> tuple[Tensor, Tree, Tree]:
            support_x, support_y, query_x, query_y, *rest = task
            key = rest.pop(0) if self.strategy.random else None
            begin = {name: rest.pop(0) for name in warm or {}}
            bound = self._bound(
                Batch(support_x, support_y), Batch(query_x, query_y), step_weights=rest[0] if weights else None, key=key
            )
            inner = bound.inner()
            loss, grads, aux, info = engine(inner, m) if warm is None else engine(inner, m, warm=begin)
            return loss, grads, prefixed(aux | {"loss": loss}, "aux.") | prefixed(info, "info.")

        keys = (
            (torch.randint(2**62, (episodes.tasks,), device=episodes.query.x.device),) if self.strategy.random else ()
        )
        tasks = (*episodes.support[:2], *episodes.query[:2], *keys, *(warm or {}).values())
        variant = (engine, self.statistics, None if warm is None else tuple(warm))
        with explained(self._predict(self.ways), self.loss, _first_task(episodes)):
            loss, grads, kept = mean_over_tasks(one, m, tasks, self.chunk, self.compiled, weights, variant)
        return MetaGradient(loss, grads, under(kept, "aux."), under(kept, "info."))

    def backward(self, episodes: Episodes, warm: Tree | None = None) -> MetaGradient:
        """Add the meta-gradient to ``.grad`` of the parameters, as ``loss.backward()`` does, and return it."""
        result = self.meta_gradient(episodes, warm)
        for name, parameter in self.named_parameters():
            if name in result.grads:
                grad = result.grads[name]
                parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad
        return result

    def advance(self, progress: float) -> None:
        """Let the curriculum, if there is one, set the learner for this part of training: from 0 to 1."""
        if self.curriculum is not None:
            self.curriculum(self, progress)

    # ------------------------------------------------------------------------------------------------ on one task

    def adapt(self, x: Tensor, y: Tensor, statistics: Statistics | None = None, ways: int | None = None) -> Adapted:
        """Learn one task and return the adapted model.

        Args:
            x: support examples ``(n, ...)``.
            y: their targets ``(n, ...)``; classes are ``0 .. C-1``.
            statistics: as in :class:`Learner`. The default, ``"inductive"`` (or the learner's ``"running"``), makes a
                prediction independent of the others in its batch.
            ways: C; the default is the learner's own, or ``y.max() + 1`` where that is more.

        Raises:
            UsageError: if the examples do not fit the model.
        """
        if statistics is None:
            statistics = "running" if self.statistics == "running" else "inductive"
        if ways is None and self.ways is not None and y.numel() and not y.is_floating_point():
            ways = max(self.ways, int(y.max()) + 1)
        support = Batch(x, y)
        check_batch(support, ways, self._dtype(), self._predict(ways))
        bound = self._bound(support, support, statistics, ways, key=torch.zeros((), dtype=torch.int64, device=x.device))
        with explained(self._predict(ways), self.loss, support):
            carry = roll(bound.inner(), bound.start({}), {})
            whole = bound.whole(carry.theta, {}, self.steps)
            used = bound.fitted_statistics(whole)
        return Adapted(self.model, whole, used)

    def evaluate(
        self,
        episodes: Episodes,
        statistics: Statistics | None = None,
        steps: int | None = None,
        ways: int | None = None,
        each_step: bool = True,
    ) -> Evaluation:
        """Learn every task and measure it before and after each inner step.

        Args:
            episodes: the tasks.
            statistics: as in :class:`Learner`; the default is the learner's own.
            steps: how many inner steps; the default is the learner's own.
            ways: how many classes, where it is another number than the learner's.
            each_step: whether to measure before and after every step, or only after the last one, which is faster.

        Raises:
            UsageError: if the episodes do not fit the model.
        """
        ways = self.ways if ways is None else ways
        steps = self.steps if steps is None else steps
        check_episodes(episodes, ways, self._dtype(), self._predict(ways))
        classes = not episodes.query.y.is_floating_point()

        def one(
            support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor, key: Tensor
        ) -> tuple[Tensor, ...]:
            bound = self._bound(Batch(support_x, support_y), Batch(query_x, query_y), statistics, ways, key=key)
            inner, carry = bound.inner(), bound.start({})
            losses, right = [], []
            for t in range(steps + 1):
                if each_step or t == steps:
                    loss, prediction = bound.measure(carry.theta, {}, t)
                    losses.append(loss)
                    right.append((prediction.argmax(1) == query_y).float().mean() if classes else loss)
                if t < steps:
                    _, carry = step(inner, carry, {}, t)
            return torch.stack(losses), torch.stack(right), prediction

        with torch.no_grad(), explained(self._predict(ways), self.loss, _first_task(episodes)):
            parts = []
            for start in range(0, episodes.tasks, self.chunk):
                part = episodes.part(start, start + self.chunk)
                keys = torch.arange(start, start + part.tasks, device=part.query.x.device)
                parts.append(func.vmap(one)(*part.support[:2], *part.query[:2], keys))
        loss, accuracy, prediction = (torch.cat(column) for column in zip(*parts, strict=True))
        return Evaluation(loss, accuracy if classes else None, prediction)

    def inner(
        self,
        support: Batch,
        query: Batch,
        statistics: Statistics | None = None,
        ways: int | None = None,
        key: Tensor | None = None,
    ) -> Inner:
        """Return the learning process of one task, for an engine or for a look inside.

        Its functions take any part of the parameters for ``m``; the others are the learner's own, as constants. Parts
        that draw random numbers draw them from ``key``, a whole number.

        Raises:
            UsageError: if the model has no such statistics, or no head for that many classes.
        """
        weights = self._step_weights(query.x.device)
        return self._bound(support, query, statistics, ways, weights[0] if weights else None, key).inner()

    def _bound(
        self,
        support: Batch,
        query: Batch,
        statistics: Statistics | None = None,
        ways: int | None = None,
        step_weights: Tensor | None = None,
        key: Tensor | None = None,
    ) -> Bound:
        statistics = self.statistics if statistics is None else statistics
        check_statistics(statistics, self.model)
        if ways is not None and ways != self.ways and not self.head:
            raise UsageError(f"no parameter of the model is a head that could start for {ways} classes: name it, head=")
        own = self._own() | prefixed(dict(self.phi.named_buffers()), "phi.")
        return Bound(self.plan, own, support, query, statistics, ways or self.ways, step_weights, key)

    def _step_weights(self, device: torch.device) -> tuple[Tensor, ...]:
        if self.step_weights is None:
            return ()
        if len(self.step_weights) != self.steps:
            given = len(self.step_weights)
            raise UsageError(f"step_weights needs a number for each of the {self.steps} inner steps, not {given}")
        return (torch.tensor(list(self.step_weights), dtype=self._dtype(), device=device),)

    def _own(self) -> Tree:
        return {name: leaf.detach() for name, leaf in self.named_parameters()}

    def _predict(self, ways: int | None) -> Callable[[Tensor], Tensor]:
        """Return the unadapted model, for checks."""
        none = Batch(torch.empty(0), torch.empty(0))
        bound = Bound(self.plan, self._own(), none, none, "transductive", ways)
        return lambda x: module.call(self.model, bound.whole({}, {}, 0), x)

    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


class Adapted(nn.Module):
    """A model that has learned one task: call it on queries ``(n, ...)``. It is a plain module of its own."""

    def __init__(self, model: nn.Module, parameters: Tree, statistics: Tree | None) -> None:
        """Copy the model, with the adapted parameters and the statistics that batch norm shall use."""
        super().__init__()
        self.model = copy.deepcopy(model)
        self.transductive = statistics is None
        for name, leaf in parameters.items():
            own = self.model.get_parameter(name)
            if own.shape == leaf.shape:
                own.data.copy_(leaf)  # in place: a tied parameter stays tied
            else:
                module.put(self.model, name, nn.Parameter(leaf.detach().clone()))
        for name, leaf in (statistics or {}).items():
            self.model.get_buffer(name).copy_(leaf.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return the prediction for ``x``."""
        statistics = None if self.transductive else module.running_statistics(self.model)
        return module.call(self.model, {}, x, statistics)


def _first_task(episodes: Episodes) -> Batch:
    return Batch(episodes.support.x[0], episodes.support.y[0])


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
