"""One compiled inner step and one compiled adjoint step, which are used for every step of a long inner loop.

Here the engine runs outside ``vmap``: each piece of its work (a function of one task's trees) is vectorised over the
tasks separately. The two that are repeated T times are traced with the step number as a tensor, and compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, func
from torch.utils._pytree import tree_leaves, tree_map, tree_structure

from rbml.autodiff import Compiled
from rbml.autodiff.compiled import is_replayed
from rbml.autodiff.flat import Form, flattened
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient
from rbml.inner import Function, Inner
from rbml.learner.binding import BoundTask
from rbml.learner.frozen import FEATURES, FrozenBody
from rbml.tasks.jobs import jobs_in, with_orders
from rbml.tree import Step, Tree, prefixed, under

ONCE = ("_begin", "_pull_outer", "_pull_start")
"""The pieces that run once per meta-gradient: compiling them would cost more than it saves."""

FEW = 3
"""With ``compile="trace"``: up to so many steps are traced as a whole, more of them as one step and its adjoint."""


class Pieces(NamedTuple):
    """What one compiled graph is.

    Attributes:
        block: how many steps it takes.
        apart: whether it is that of one task by itself, with plain derivatives: the stack has no other.
        threads: of one call; 0: as many as PyTorch has.
    """

    block: int = 1
    apart: bool = False
    threads: int = 0


PLAIN = Pieces()
"""One step of all tasks of a stack."""


class CompiledSteps:
    """A :class:`rbml.inner.Runner` for a stack of tasks.

    A call walks no tree but those that change from step to step: it would take longer than a small step does.

    Args:
        bind: a function from one task (a tree of tensors) to its :class:`rbml.inner.Inner`.
        tasks: the stack, ``(B, ...)``.
        compiled: where compiled graphs are kept.
        variant: a hashable value of everything else that ``bind`` depends on.
        pieces: what one graph is.
    """

    def __init__(
        self, bind: Callable[[Any], Inner], tasks: Any, compiled: Compiled, variant: Any, pieces: Pieces = PLAIN
    ) -> None:
        """Keep the stack, without any graph."""
        self.bind, self.tasks, self.compiled, self.variant, self.pieces = bind, tasks, compiled, variant, pieces
        self._m: tuple[Tree, list[Tensor]] = {}, []
        self._graphs: dict[Any, tuple[Callable[..., Any], Form]] = {}
        jobs = jobs_in(tasks) if tree_leaves(tasks)[0].device.type == "cpu" else []  # elsewhere it would be waited for
        batches = {job.examples.y.shape[1] // job.places.shape[1] for job in jobs}
        self._batches = batches.pop() if len(batches) == 1 else 0  # per epoch
        self._ordered: dict[tuple[int, int], tuple[Any, list[Tensor]]] = {}

    def inner(self) -> Inner:
        """Return the inner loop whose pieces run on all tasks."""
        inner = self.bind(tree_map(lambda leaf: leaf[0], self.tasks))
        return replace(inner, run=self, block=_dividing(inner.steps, self.pieces.block))

    def __call__(self, function: Function, inner: Inner, m: Tree, t: Step, *trees: Any, **options: Any) -> Any:
        """Run a piece of work on all tasks; ``trees`` and the results have the tasks as their first dimension."""
        once = function.__name__ in ONCE and not is_replayed(self.compiled)

        def all_tasks(m: Tree, t: Step, tasks: Any, trees: tuple[Any, ...]) -> Any:
            def single(m: Tree, task: Any, own: tuple[Any, ...]) -> Any:
                return function(self.bind(task), m, t, *own, **options)

            shared_or_not = {name: 0 if name.startswith(FEATURES) else None for name in m}
            if self.pieces.apart:
                first = {name: leaf[0] if name.startswith(FEATURES) else leaf for name, leaf in m.items()}
                return tree_map(_stacked, single(first, *tree_map(_first, (tasks, trees))))
            return func.vmap(single, in_dims=(shared_or_not, 0, 0))(m, tasks, trees)

        if once:
            return all_tasks(m, t, self.tasks, trees)
        tasks, of_tasks = self._at(int(t), options.get("count", 1))
        if m is not self._m[0]:
            self._m = m, _contiguous(m)
        leaves = [*self._m[1], torch.as_tensor(t), *of_tasks, *_contiguous(trees)]
        key = (function, *sorted(options.items()))
        if key not in self._graphs:
            form = tree_structure((m, 0, tasks, trees))
            variant = (self.variant, *key)
            self._graphs[key] = self.compiled.graph(all_tasks, leaves, form, variant, self.pieces.threads)
        graph, form_of_results = self._graphs[key]
        return form_of_results(iter(graph(*leaves)))

    def _at(self, t: int, count: int) -> tuple[Any, list[Tensor]]:
        """Return the tasks as steps from ``t`` on see them, and their leaves: the order of jobs is drawn by epochs."""
        epoch, epochs = (t // self._batches, 2 + (count - 2) // self._batches) if self._batches else (0, 0)
        if (epoch, epochs) not in self._ordered:
            tasks = with_orders(self.tasks, epoch, epochs) if epochs else self.tasks
            kept = list(self._ordered.items())[-1:]  # the epoch before is needed no more, or the one after, going back
            self._ordered = dict([*kept, ((epoch, epochs), (tasks, _contiguous(tasks)))])
        return self._ordered[epoch, epochs]


def _contiguous(tree: Any) -> list[Tensor]:
    """Return the leaves of a tree with the strides that are traced."""
    return [leaf.contiguous() for leaf in flattened(tree)]


def _first(leaf: Tensor) -> Tensor:
    return leaf[0]


def _stacked(leaf: Tensor) -> Tensor:
    return leaf[None]


def _dividing(steps: int, block: int) -> int:
    """Return the largest number up to ``block`` that divides the steps; ``block`` if only 1 does.

    >>> _dividing(1000, 5), _dividing(9, 5), _dividing(7, 5), _dividing(3, 5)
    (5, 3, 5, 3)
    """
    return max((size for size in range(2, block + 1) if steps % size == 0), default=block)


def one_by_one(compile: str, engine: Hypergradient, steps: int) -> bool:
    """Return whether each step is run by the graph of one step, rather than all of them by one graph."""
    if compile == "trace":
        return steps > FEW and _has_form(engine)
    return compile == "step"


def _has_form(engine: Hypergradient) -> bool:
    sweeps = isinstance(engine, Adjoint) and engine.store != "reverse" and not engine.keep
    return sweeps or isinstance(engine, FirstOrder)


def for_steps(engine: Hypergradient) -> Hypergradient:
    """Return the engine in the form that runs compiled pieces.

    Raises:
        UsageError: if the engine has no such form, or is asked to keep graphs, which compiled pieces cannot do.
    """
    if _has_form(engine):
        return replace(engine, keep=0) if isinstance(engine, Adjoint) else engine
    raise UsageError(
        f"compile='step' compiles the pieces of Adjoint(store='all' or 'segments', keep=0) and of FirstOrder, and this "
        f"is {engine}: choose one of them, or compile='whole' or 'no'"
    )


def stacked(
    bind: Callable[[Any], BoundTask],
    layer: str | None,
    engine: Hypergradient,
    m: Tree,
    tasks: Any,
    compiled: Compiled,
    variant: Any,
    pieces: Pieces = PLAIN,
) -> tuple[Tensor, Tree, Tree]:
    """Return loss ``(B,)``, gradients ``(B, ...)`` and aux ``(B, ...)`` of a stack of tasks.

    Args:
        bind: from one task (a tree of tensors) to its learning process.
        layer: the head, where the body can run once (:mod:`rbml.learner.frozen`): before the steps and after them.
        engine: of the hypergradient.
        m: the meta-parameters.
        tasks: the stack, ``(B, ...)``.
        compiled: where compiled graphs are kept.
        variant: what else ``bind`` depends on; hashable.
        pieces: what one graph is.

    Raises:
        UsageError: if the engine cannot be compiled step by step.
    """
    engine = for_steps(engine)
    tasks = tree_map(lambda leaf: leaf.contiguous(), tasks)  # once, not at every step
    if layer is None:
        return _run(lambda task: bind(task).inner(), engine, m, tasks, compiled, variant, pieces)
    body = FrozenBody(bind(tree_map(lambda leaf: leaf[0], tasks)), layer).body(m)

    def features(task: Any, some: Tree) -> Tree:
        return FrozenBody(bind(task), layer).features(m | some)

    def pulled(task: Any, bar: Tree) -> Tree:
        found: Tree = func.vjp(lambda some: features(task, some), body)[1](bar)[0]
        return found

    found: Tree = func.vmap(lambda task: features(task, {}))(tasks)
    rest = {name: leaf for name, leaf in m.items() if name not in body} | prefixed(found, FEATURES)

    def head(both: dict[str, Any]) -> Inner:
        return FrozenBody(bind(both["task"]), layer).inner(both["features"])

    both = {"task": tasks, "features": found}
    loss, grads, aux = _run(head, engine, rest, both, compiled, (variant, layer), pieces)
    along_body = func.vmap(pulled)(tasks, under(grads, FEATURES)) if body else {}
    return loss, {name: (grads | along_body)[name] for name in m}, aux


def _run(
    bind: Callable[[Any], Inner],
    engine: Hypergradient,
    m: Tree,
    tasks: Any,
    compiled: Compiled,
    variant: Any,
    pieces: Pieces,
) -> tuple[Tensor, Tree, Tree]:
    loss, grads, aux, _ = engine(CompiledSteps(bind, tasks, compiled, variant, pieces).inner(), m)
    return loss, grads, aux | {"loss": loss}
