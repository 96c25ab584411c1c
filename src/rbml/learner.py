"""The learner binds a model, a strategy and a task into an inner loop, and owns what is learned across tasks.

Shapes: B tasks, n examples of one task, C classes ("ways"), T inner steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml import functional
from rbml.autodiff import Compiled, mean_over_tasks
from rbml.checks import Loss, check_batch, check_episodes, explained
from rbml.errors import UsageError, unknown
from rbml.hypergrad import Adjoint, Hypergradient, MetaGradient
from rbml.inner import Carry, Inner, step
from rbml.operators import Differentiable
from rbml.strategy import Rule, Strategy, Term, chain, sgd
from rbml.tasks import Batch, Episodes
from rbml.tree import Tree, matching, pick, prefixed, under

Statistics = Literal["transductive", "inductive", "running"]


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
            It needs a C++ compiler; options that are changed later are not seen.
        generator: for starts that are drawn at random; ``None`` is PyTorch's global one.

    Raises:
        UsageError: if a pattern matches no parameter or an option is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        strategy: Strategy | Rule | Term | None = None,
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
        generator: torch.Generator | None = None,
    ) -> None:
        """Copy the model, and start phi."""
        super().__init__()
        if steps < 0 or chunk < 1:
            raise UsageError(f"steps must be at least 0 and chunk at least 1, not {steps=} and {chunk=}")
        if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
            raise UsageError("the loss has parameters: learned by this loss itself they would only make it small")
        self.model = functional.isolated(model)
        self.strategy = chain(sgd(0.1) if strategy is None else strategy)
        if not self.strategy.rules:
            raise UsageError("a strategy of terms alone sets no learning rate: add a rule, such as sgd(0.1)")
        self._check_statistics(statistics)
        self.steps, self.loss, self.chunk, self.statistics = steps, loss, chunk, statistics
        self.compiled = Compiled() if compile else None
        self.hypergradient: Hypergradient = Adjoint() if hypergradient is None else hypergradient

        trained = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        rows = {name: (*self.model.get_parameter(name).shape, 0)[0] for name in matching(trained, head)}
        self.head = list(rows) if len(set(rows.values())) == 1 else []
        self.ways = rows[self.head[0]] if self.head else None
        if shared_head:
            self._share_head(head)
        self.adapted = matching(trained, adapt)
        if not self.adapted:
            raise UsageError(
                f"adapt={adapt!r} matches no parameter of the model; it has {', '.join(trained) or 'none'}"
            )
        theta = pick(dict(self.model.named_parameters()), self.adapted)
        learned, fixed = self.strategy.initial({k: v.detach() for k, v in theta.items()}, steps, generator)
        self.phi = _nested(learned, fixed)

    def _share_head(self, pattern: str) -> None:
        """Replace the head's rows by their mean: the one row from which every class starts."""
        if not self.head:
            raise UsageError(f"shared_head needs a head, and head={pattern!r} matches no parameter of the model")
        for name in self.head:
            owner, _, leaf = name.rpartition(".")
            rows = self.model.get_parameter(name).detach()
            setattr(self.model.get_submodule(owner), leaf, nn.Parameter(rows.mean(0, keepdim=True)))

    # ------------------------------------------------------------------------------------------------ across tasks

    def meta_gradient(self, episodes: Episodes) -> MetaGradient:
        """Return the mean query loss over the tasks and its derivative with respect to every parameter of the learner.

        Returns:
            ``grads`` is named as ``named_parameters()``; ``aux`` has ``loss`` ``(B,)`` and ``prediction``
            ``(B, n, ...)``.

        Raises:
            UsageError: if the episodes do not fit the model.
            BlindError: if the engine cannot see a parameter.
        """
        check_episodes(episodes, self.ways, self._dtype(), self._predict(self.ways))
        m = {name: leaf.detach() for name, leaf in self.named_parameters() if leaf.requires_grad}

        def one(
            m: Tree, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor
        ) -> tuple[Tensor, Tree, Tree]:
            inner = self.inner(Batch(support_x, support_y), Batch(query_x, query_y))
            loss, grads, aux, info = self.hypergradient(inner, m)
            return loss, grads, prefixed(aux | {"loss": loss}, "aux.") | prefixed(info, "info.")

        with explained(self._predict(self.ways), self.loss, _first_task(episodes)):
            loss, grads, kept = mean_over_tasks(one, m, (*episodes.support, *episodes.query), self.chunk, self.compiled)
        return MetaGradient(loss, grads, under(kept, "aux."), under(kept, "info."))

    def backward(self, episodes: Episodes) -> MetaGradient:
        """Add the meta-gradient to ``.grad`` of the parameters, as ``loss.backward()`` does, and return it."""
        result = self.meta_gradient(episodes)
        for name, parameter in self.named_parameters():
            if name in result.grads:
                grad = result.grads[name]
                parameter.grad = grad.clone() if parameter.grad is None else parameter.grad + grad
        return result

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
        inner = self.inner(support, support, statistics=statistics, ways=ways)
        m = self._own()
        with explained(self._predict(ways), self.loss, support):
            carry = inner.start(m)
            for t in range(self.steps):
                _, carry = step(inner, carry, m, t)
            used = self._statistics(carry.theta, m, x, statistics)
        return Adapted(self.model, self._whole(carry.theta, m, ways), used)

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
        m = self._own()
        classes = not episodes.query.y.is_floating_point()

        def one(support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Tensor, ...]:
            inner = self.inner(Batch(support_x, support_y), Batch(query_x, query_y), statistics, ways)
            carry = inner.start(m)
            losses, right = [], []
            for t in range(steps + 1):
                if each_step or t == steps:
                    loss, aux = inner.outer(carry, m)
                    losses.append(loss)
                    right.append((aux["prediction"].argmax(1) == query_y).float().mean() if classes else loss)
                if t < steps:
                    _, carry = step(inner, carry, m, t)
            return torch.stack(losses), torch.stack(right), aux["prediction"]

        with torch.no_grad(), explained(self._predict(ways), self.loss, _first_task(episodes)):
            parts = [func.vmap(one)(*chunk.support, *chunk.query) for chunk in self._chunks(episodes)]
        loss, accuracy, prediction = (torch.cat(column) for column in zip(*parts, strict=True))
        return Evaluation(loss, accuracy if classes else None, prediction)

    def inner(
        self, support: Batch, query: Batch, statistics: Statistics | None = None, ways: int | None = None
    ) -> Inner:
        """Return the learning process of one task, for an engine or for a look inside.

        Its functions take any part of the parameters for ``m``; the others are the learner's own, as constants.

        Raises:
            UsageError: if the model has no such statistics, or no head for that many classes.
        """
        statistics = self.statistics if statistics is None else statistics
        self._check_statistics(statistics)
        if ways is not None and ways != self.ways and not self.head:
            raise UsageError(f"no parameter of the model is a head that could start for {ways} classes: name it, head=")
        ways = self.ways if ways is None else ways
        own = self._own()
        fixed = dict(self.phi.named_buffers())

        def phi(m: Tree) -> Tree:
            return under(own | m, "phi.") | fixed

        def start(m: Tree) -> Carry:
            theta0 = pick(under(own | m, "model."), self.adapted)
            theta = {name: self._fitted(leaf, name, ways) for name, leaf in theta0.items()}
            return Carry(theta, self.strategy.init(theta))

        def objective(theta: Tree, m: Tree, t: int) -> Tensor:
            fit = functional.running_statistics(self.model) if statistics == "running" else None
            prediction = functional.call(self.model, self._whole(theta, own | m, ways), support.x, fit)
            with Differentiable():
                loss = self.loss(prediction, support.y)
                if not self.strategy.terms:
                    return loss
                return loss + self.strategy.term(theta, start(m).theta, phi(m), (*support, prediction), t)

        def update(grads: Tree, carry: Carry, m: Tree, t: int) -> Carry:
            return Carry(*self.strategy.update(grads, carry.state, carry.theta, phi(m), t))

        def outer(carry: Carry, m: Tree) -> tuple[Tensor, Tree]:
            used = self._statistics(carry.theta, own | m, support.x, statistics)
            prediction = functional.call(self.model, self._whole(carry.theta, own | m, ways), query.x, used)
            with Differentiable():
                return self.loss(prediction, query.y), {"prediction": prediction}

        return Inner(start, objective, update, outer, self.steps, self._enters())

    def _whole(self, theta: Tree, m: Tree, ways: int | None) -> Tree:
        """Return all parameters of the model: theta where it is adapted, those of ``m`` elsewhere."""
        others = {name: leaf for name, leaf in under(m, "model.").items() if name not in theta}
        return {name: self._fitted(leaf, name, ways) for name, leaf in others.items()} | theta

    def _statistics(self, theta: Tree, m: Tree, x: Tensor, which: Statistics) -> Tree | None:
        if which == "transductive":
            return None
        if which == "running":
            return functional.running_statistics(self.model)
        return functional.statistics_of(self.model, under(m, "model.") | theta, x)

    def _fitted(self, leaf: Tensor, name: str, ways: int | None) -> Tensor:
        """Return a parameter of the head with a row a class: fewer take the first rows, more take the rows again."""
        if ways is None or name not in self.head or leaf.shape[0] == ways:
            return leaf
        return leaf[torch.arange(ways, device=leaf.device) % leaf.shape[0]]

    def _enters(self) -> dict[str, frozenset[str]]:
        terms = self.strategy.terms_of(dict(self.phi.named_parameters()))
        start = frozenset({"start", "objective"}) if self.strategy.terms else frozenset({"start"})
        rest = frozenset({"objective", "outer"})
        enters = {f"model.{n}": start if n in self.adapted else rest for n, _ in self.model.named_parameters()}
        for name, _ in self.phi.named_parameters():
            enters[f"phi.{name}"] = frozenset({"objective" if name in terms else "update"})
        return enters

    def _own(self) -> Tree:
        return {name: leaf.detach() for name, leaf in self.named_parameters()}

    def _chunks(self, episodes: Episodes) -> Sequence[Episodes]:
        return [episodes.part(start, start + self.chunk) for start in range(0, episodes.tasks, self.chunk)]

    def _check_statistics(self, statistics: str) -> None:
        """Refuse a choice of batch-norm statistics that does not exist, or that the model does not have."""
        check_statistics(statistics)
        if statistics == "running" and (without := functional.without_statistics(self.model)):
            raise UsageError(f"{', '.join(without)} of the model keeps no running statistics: use another choice")

    def _predict(self, ways: int | None) -> Callable[[Tensor], Tensor]:
        """Return the unadapted model, for checks."""
        return lambda x: functional.call(self.model, self._whole({}, self._own(), ways), x)

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
                owner, _, last = name.rpartition(".")
                setattr(self.model.get_submodule(owner), last, nn.Parameter(leaf.detach().clone()))
        for name, leaf in (statistics or {}).items():
            self.model.get_buffer(name).copy_(leaf.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Return the prediction for ``x``."""
        statistics = None if self.transductive else functional.running_statistics(self.model)
        return functional.call(self.model, {}, x, statistics)


def check_statistics(statistics: str) -> None:
    """Refuse a choice of batch-norm statistics that does not exist."""
    if statistics not in get_args(Statistics):
        raise unknown("choice of batch-norm statistics", statistics, get_args(Statistics))


def _first_task(episodes: Episodes) -> Batch:
    return Batch(episodes.support.x[0], episodes.support.y[0])


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
