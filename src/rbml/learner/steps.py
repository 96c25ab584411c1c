"""One compiled inner step and one compiled adjoint step, which are used for every step of a long inner loop.

Here the engine runs outside ``vmap``: each piece of its work (a function of one task's trees) is vectorised over the
tasks separately. The two that are repeated T times are traced with the step number as a tensor, and compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, func
from torch.utils._pytree import tree_map

from rbml.autodiff import Compiled
from rbml.autodiff.compiled import is_replayed
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient
from rbml.inner import Function, Inner
from rbml.learner.binding import BoundTask
from rbml.learner.frozen import FEATURES, FrozenBody
from rbml.tree import Step, Tree, prefixed, under

ONCE = ("_begin", "_pull_outer", "_pull_start")
"""The pieces that run once per meta-gradient: compiling them would cost more than it saves."""

FEW = 3
"""With ``compile="trace"``: up to so many steps are traced as a whole, more of them as one step and its adjoint."""


@dataclass(frozen=True)
class CompiledSteps:
    """A :class:`rbml.inner.Runner` for a stack of tasks.

    Attributes:
        bind: a function from one task (a tree of tensors) to its :class:`rbml.inner.Inner`.
        tasks: the stack, ``(B, ...)``.
        compiled: where compiled graphs are kept.
        variant: a hashable value of everything else that ``bind`` depends on.
    """

    bind: Callable[[Any], Inner]
    tasks: Any
    compiled: Compiled
    variant: Any

    def __call__(self, function: Function, inner: Inner, m: Tree, t: Step, *trees: Any, **options: Any) -> Any:
        """Run a piece of work on all tasks; ``trees`` and the results have the tasks as their first dimension."""

        def all_tasks(m: Tree, t: Step, tasks: Any, trees: tuple[Any, ...]) -> Any:
            def single(m: Tree, task: Any, own: tuple[Any, ...]) -> Any:
                return function(self.bind(task), m, t, *own, **options)

            shared_or_not = {name: 0 if name.startswith(FEATURES) else None for name in m}
            return func.vmap(single, in_dims=(shared_or_not, 0, 0))(m, tasks, trees)

        if function.__name__ in ONCE and not is_replayed(self.compiled):
            return all_tasks(m, t, self.tasks, trees)
        variant = (self.variant, function, *sorted(options.items()))
        return self.compiled(all_tasks, m, torch.as_tensor(t), self.tasks, trees, variant=variant)


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

    Raises:
        UsageError: if the engine cannot be compiled step by step.
    """
    engine = for_steps(engine)
    tasks = tree_map(lambda leaf: leaf.contiguous(), tasks)  # once, not at every step
    if layer is None:
        return _run(lambda task: bind(task).inner(), engine, m, tasks, compiled, variant)
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
    loss, grads, aux = _run(head, engine, rest, both, compiled, (variant, layer))
    along_body = func.vmap(pulled)(tasks, under(grads, FEATURES)) if body else {}
    return loss, {name: (grads | along_body)[name] for name in m}, aux


def _run(
    bind: Callable[[Any], Inner], engine: Hypergradient, m: Tree, tasks: Any, compiled: Compiled, variant: Any
) -> tuple[Tensor, Tree, Tree]:
    inner = bind(tree_map(lambda leaf: leaf[0], tasks))
    runner = CompiledSteps(bind, tasks, compiled, variant)
    loss, grads, aux, _ = engine(replace(inner, run=runner), m)
    return loss, grads, aux | {"loss": loss}
