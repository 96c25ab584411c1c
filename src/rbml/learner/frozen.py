r"""When a task adapts only the head, the body runs once, and the inner loop works on its features.

The body's parameters are still learned across tasks. With f the features of a task's examples,

.. math:: \frac{dL}{d\,body} = \frac{df}{d\,body}^T \frac{dL}{df},

where :math:`dL/df` is an ordinary hypergradient whose meta-parameters are the features themselves. The result is exact,
and an inner step costs no more than the head: the body runs forward and backward once instead of at every inner step.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, func, nn
from torch.utils._pytree import tree_leaves

from rbml import strategy
from rbml.autodiff import module as modules
from rbml.autodiff.alone import values_and_pull
from rbml.data.batch import Batch
from rbml.hypergrad import Adjoint, Hypergradient, MetaGradient, Unrolled, Windowed
from rbml.inner import Carry, Inner
from rbml.learner.binding import BoundTask
from rbml.tasks import Episode, Job, Replay, Stream
from rbml.tasks.jobs import OrderedJob
from rbml.tree import Step, Tree, prefixed, under

FEATURES = "features."
"""What the names of features begin with, where they are meta-parameters of the head's learning process."""


_PLAIN = (nn.Linear, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity)
"""What may stand in a head of several layers: it treats every example by itself, and drops nothing."""


class HeadAlone(nn.Module):
    """The head of a model, under the same parameter names: maps features ``(n, d)`` to predictions."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        """Put the layers under the names that they have in the model."""
        super().__init__()
        self.layers = tuple(layers)
        for layer in layers:
            owner: nn.Module = self
            *path, last = layer.split(".")
            for name in path:
                owner.add_module(name, nn.Module())
                owner = owner.get_submodule(name)
            owner.add_module(last, model.get_submodule(layer))

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions."""
        for layer in self.layers:
            x = self.get_submodule(layer)(x)
        return x


def layers_from(model: nn.Module, layer: str) -> tuple[str, ...]:
    """Return the layers of the head that begins with this one: in a sequence, it and those after it.

    >>> layers_from(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), "1")
    ('1', '2')
    """
    children = [name for name, _ in model.named_children()]
    if isinstance(model, nn.Sequential) and layer in children:
        return tuple(children[children.index(layer) :])
    return (layer,)


def head_that_is_adapted(bound: BoundTask) -> str | None:
    """Return the first layer of the head that the task adapts, or ``None`` if the body must run at every step.

    A head is one linear layer; or, in a model that is a sequence, its last linear layers and their activations. Whether
    it is the end of the model is left to :func:`comes_last`.
    """
    plan = bound.plan
    adapted = {name.rpartition(".")[0] for name in plan.adapted}
    in_order = [name for name, _ in plan.model.named_modules() if name in adapted]
    layer = in_order[0] if in_order else ""
    if not layer or plan.stepwise:
        return None
    layers = layers_from(plan.model, layer)
    if not adapted <= set(layers) or not all(isinstance(plan.model.get_submodule(one), _PLAIN) for one in layers):
        return None
    whole = {name.rpartition(".")[0] for name, _ in plan.model.named_parameters()}
    if len(layers) > 1 and whole <= set(layers):
        return None  # there is no body
    if not isinstance(bound.task, Episode | Stream | Job | Replay):
        return None
    named = {name: torch.empty(0) for name in plan.adapted}
    if any(not set(gate.among(named)) <= set(layers) for gate in plan.strategy.gates):
        return None
    known = {getattr(maker, "__name__", "") for maker in strategy.ALL.values()}
    if any(term.origin is None or term.origin.by not in known for term in plan.strategy.terms):
        return None  # a user's own term may read the inputs, and would be given features
    return layer


def comes_last(bound: BoundTask, layer: str) -> bool:
    """Return whether the output of the model is that of the head which begins with this layer, found by trying."""
    whole, x, layers = bound.whole({}, {}, 0), bound.task.query.x, layers_from(bound.plan.model, layer)
    try:
        with torch.no_grad():
            features = modules.inputs_of(bound.plan.model, whole, x, layer)
            head = {name: leaf for name, leaf in whole.items() if name.rpartition(".")[0] in layers}
            alone = func.functional_call(HeadAlone(bound.plan.model, layers), head, (features,))
            if not torch.equal(alone, modules.call(bound.plan.model, whole, x)):
                return False
            return not isinstance(bound.task, Job | Replay) or _is_same_in_every_batch(bound, layer, whole)
    except Exception:  # any failure on the features alone means that the whole model is needed
        return False


def _is_same_in_every_batch(bound: BoundTask, layer: str, whole: Tree) -> bool:
    """Return whether the features of an example do not depend on its mini-batch, as they do with batch norm."""
    model = bound.plan.model
    stored = modules.running_statistics(model) if bound.statistics == "running" else None
    batch = bound.task.at(0)
    together = modules.inputs_of(model, whole, bound.task.support.x, layer, stored)
    alone = modules.inputs_of(model, whole, batch.x, layer, stored)
    return torch.allclose(together.index_select(0, batch.mask["index"]), alone, rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class FrozenBody:
    """A task that adapts only the head.

    Attributes:
        bound: the task with the whole model.
        layer: the head's name; of a head of several layers, the first one's.
    """

    bound: BoundTask
    layer: str

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """All layers of the head."""
        return layers_from(self.bound.plan.model, self.layer)

    def body(self, m: Tree) -> Tree:
        """Return the meta-parameters that are the model's, but not of its head."""
        return {name: leaf for name, leaf in m.items() if in_body(name, self.layers)}

    def features(self, m: Tree) -> Tree:
        """Return the features of ``"support"`` and ``"query"``, in the form of the task's inputs."""
        bound, model = self.bound, self.bound.plan.model
        whole = bound.whole({}, m, 0)
        stored = modules.running_statistics(model) if bound.statistics == "running" else None

        def of(batch: Batch, statistics: Tree | None) -> Tensor:
            return modules.inputs_of(model, whole, batch.x, self.layer, statistics, batch.mask.get("example"))

        task, query = bound.task, of(bound.task.query, bound.fitted_statistics(whole))
        if isinstance(task, Stream | Replay):
            stream = task if isinstance(task, Stream) else task.stream
            # Each batch by itself: a layer such as batch norm may look at all examples that it is given.
            places = torch.arange(len(task.steps.y), device=task.steps.y.device)
            return {"support": func.vmap(lambda t: of(stream.at(t), stored))(places), "query": query}
        return {"support": of(task.support, stored), "query": query}

    def on(self, features: Tree) -> BoundTask:
        """Return the same task for the head alone, with these features as its inputs."""
        bound, plan = self.bound, self.bound.plan
        alone = HeadAlone(plan.model, self.layers)
        own = {name: leaf for name, leaf in bound.own.items() if not in_body(name, self.layers)}
        head = [name for name in plan.head if name.rpartition(".")[0] in self.layers]
        return replace(bound, plan=replace(plan, model=alone, head=head), own=own, task=_with(bound.task, features))

    def gradient(self, engine: Hypergradient, m: Tree) -> MetaGradient:
        """Return the meta-gradient of the whole model: the engine's for the head, pulled back through the body."""
        body = self.body(m)
        rest = {name: leaf for name, leaf in m.items() if name not in body}
        if body:
            features, pull = values_and_pull(lambda some: self.features(m | some), body)
        else:  # a fixed body needs no derivative
            features, pull = self.features(m), lambda bars: {}
        found = engine(self.inner(features), rest | prefixed(features, FEATURES))
        grads = found.grads | pull(under(found.grads, FEATURES))
        return found._replace(grads={name: grads[name] for name in m})

    def inner(self, features: Tree) -> Inner:
        """Return the inner loop of the head, with the features among its meta-parameters."""
        alone = self.on(features)
        plan, stepping = alone.plan, alone.step_weights is not None
        made = {"start"} if plan.strategy.start is not None else set()
        support = {"objective"} | made

        def of(m: Tree) -> BoundTask:
            return replace(alone, task=_with(alone.task, features | under(m, FEATURES)))

        def start(m: Tree) -> Carry:
            return of(m).start(m)

        def objective(theta: Tree, m: Tree, t: Step) -> Tensor:
            return of(m).objective(theta, m, t)

        def update(grads: Tree, carry: Carry, m: Tree, t: Step) -> Carry:
            return of(m).update(grads, carry, m, t)

        def outer(carry: Carry, m: Tree) -> Any:
            return of(m).outer(carry, m)

        enters = alone.enters() | {
            f"{FEATURES}support": frozenset(support),
            f"{FEATURES}query": frozenset({"outer"} | ({"update"} if stepping else set())),
        }
        return Inner(start, objective, update, outer, plan.steps, enters, alone.undo)


def in_body(name: str, layers: Collection[str]) -> bool:
    """Return whether a meta-parameter is one of the model's, but not of its head."""
    return name.startswith("model.") and name.removeprefix("model.").rpartition(".")[0] not in layers


def frozen_body(
    bound: BoundTask, engine: Hypergradient | None = None, tried: dict[Any, bool] | None = None
) -> str | None:
    """Return the name of the head if the body need run only once: only the last, linear layers are adapted.

    Args:
        bound: a single task.
        engine: the hypergradient engine. Approximate ones would leave out part of the derivative with respect to the
            features, so that they run the whole model.
        tried: what was found for tasks of these shapes before, which is added to: trying takes a few passes.
    """
    layer = head_that_is_adapted(bound)
    within = engine.engine if isinstance(engine, Windowed) else engine
    if not layer or not (within is None or isinstance(within, Adjoint | Unrolled)):
        return None
    tried = {} if tried is None else tried
    shapes = tuple(leaf.shape for leaf in tree_leaves(bound.task))
    key = (layer, bound.statistics, bound.ways, type(bound.task).__name__, shapes)
    if key not in tried:
        tried[key] = comes_last(bound, layer)
    return layer if tried[key] else None


def _with(task: Any, features: Tree) -> Any:
    """Return a task whose inputs are features."""
    query = task.query._replace(x=features["query"])
    if isinstance(task, Stream | Replay):
        return task._replace(steps=task.steps._replace(x=features["support"]), query=query)
    if isinstance(task, Job | OrderedJob):
        return task._replace(examples=task.examples._replace(x=features["support"]), query=query)
    return Episode(task.support._replace(x=features["support"]), query)
