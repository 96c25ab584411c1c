"""Whole training runs from several starts, side by side: their losses, and the derivative of these by phi.

Shapes: S starts, N training examples, n validation examples, T steps of b examples.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from rbml.data.batch import Batch
from rbml.diagnostics.smoothness import Smoothness, metasmoothness
from rbml.hypergrad import Adjoint
from rbml.inner import Carry, Inner, begin, roll
from rbml.learner import Learner
from rbml.learner.binding import BoundTask
from rbml.learner.steps import CompiledSteps, stacked
from rbml.strategy.views import each_loss
from rbml.tasks import Job
from rbml.tree import Tree, prefixed, under


def restarted(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a model whose layers are drawn anew, by ``reset_parameters`` of each layer that has it.

    Parameters of layers that have no such method keep their values. The global random state is left unchanged.
    """
    device = next(model.parameters()).device
    fresh = copy.deepcopy(model).cpu()  # the same numbers on every device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in fresh.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()
    return fresh.to(device)


@dataclass(frozen=True)
class Runs:
    """Training runs of one learner on one set of examples.

    Attributes:
        learner: its phi is what is learned; where theta starts is drawn for every run.
        model: whose layers are drawn anew.
        train: the examples to train on, ``(N, ...)``.
        judge: the examples on which a run is judged, ``(n, ...)``.
        size: examples per mini-batch: b.
    """

    learner: Learner
    model: nn.Module
    train: Batch
    judge: Batch
    size: int

    def stack(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Return the tasks of runs that differ in their first weights, their order and their random numbers."""
        starts = [dict(restarted(self.model, seed).named_parameters()) for seed in seeds]
        names = [name for name, _ in self.learner.model.named_parameters()]
        theta = {name: torch.stack([start[name].detach() for start in starts]) for name in names}
        size = min(self.size, self.train.size)
        return {
            "task": Job.of(self.train, self.judge, size, list(seeds)),
            "theta": theta,
            "key": torch.tensor(list(seeds), dtype=torch.int64, device=self.train.y.device),
        }

    def bound(self, given: dict[str, Any]) -> BoundTask:
        """Return one run."""
        bound = self.learner.bind(given["task"], key=given["key"])
        return replace(bound, own=bound.own | prefixed(given["theta"], "model."))

    def phi(self) -> Tree:
        """Return what is learned."""
        return {
            f"phi.{name}": leaf.detach().clone()
            for name, leaf in self.learner.phi.named_parameters()
            if leaf.requires_grad
        }

    def gradients(self, m: Tree, seeds: Sequence[int]) -> tuple[Tensor, Tree]:
        """Return the loss of every run ``(S,)``, and its derivative by phi, ``(S, ...)``.

        Args:
            m: phi, named ``phi.*``.
            seeds: one per run.
        """
        engine: Any = Adjoint(store="segments")
        stack = self.stack(seeds)
        if self.learner.compiled is not None:
            run = partial(stacked, self.bound, None, engine, compiled=self.learner.compiled, variant="tune")

            def chunk(m: Tree, part: Any) -> tuple[Tensor, Tree, Tree]:
                loss, grads, _ = run(m, part)
                return loss, grads, {"loss": loss} | prefixed(grads, "grad.")

            _, _, aux = self.learner.over_tasks.mean_of_stacks(chunk, m, stack)
            return aux["loss"], under(aux, "grad.")

        def single(m: Tree, given: dict[str, Any]) -> tuple[Tensor, Tree, Tree]:
            loss, grads, _, _ = engine(self.bound(given).inner(), m)
            return loss, grads, {"loss": loss} | prefixed(grads, "grad.")

        _, _, aux = self.learner.over_tasks.mean(single, m, stack)
        return aux["loss"], under(aux, "grad.")

    def gradient(self, m: Tree, seeds: Sequence[int]) -> tuple[Tensor, Tree]:
        """Return the loss of every run ``(S,)``, and the derivative of their mean; arguments as :meth:`gradients`."""
        losses, each = self.gradients(m, seeds)
        return losses, {name: grad.mean(0) for name, grad in each.items()}

    def ends(self, m: Tree, seeds: Sequence[int]) -> tuple[dict[str, Any], Tree]:
        """Return the tasks of the runs, and theta at their ends, ``(S, ...)``."""
        stack = self.stack(seeds)
        if self.learner.compiled is not None:
            bind = lambda given: self.bound(given).inner()  # noqa: E731
            inner = CompiledSteps(bind, stack, self.learner.compiled, "tune").inner()
            return stack, roll(inner, begin(inner, m), m).theta

        def end(given: dict[str, Any]) -> Tree:
            inner = self.bound(given).inner()
            return roll(inner, inner.start(m), m).theta

        ends: Tree = self.learner.over_tasks.each(end, stack)
        return stack, ends

    def judged(self, m: Tree, seeds: Sequence[int], metrics: Sequence[Any] = ()) -> dict[str, Tensor]:
        """Return the loss and the metrics of every run, ``(S,)``, and as ``each`` the examples' losses, ``(S, n)``."""
        with torch.no_grad():
            stack, ends = self.ends(m, seeds)

            def measure(given: tuple[dict[str, Any], Tree]) -> dict[str, Tensor]:
                bound = self.bound(given[0])
                loss, prediction = bound.measure(given[1], m, bound.plan.steps)
                query = bound.task.query
                each = each_loss(bound.plan.loss, prediction, query.y)
                return {"loss": loss, "each": each} | {one.name: one.of(prediction, query) for one in metrics}

            found: dict[str, Tensor] = self.learner.over_tasks.each(measure, (stack, ends))
        return found

    def smoothness(self, m: Tree, grads: Tree, seeds: Sequence[int]) -> Smoothness:
        """Return how smooth the loss after these runs is along its hypergradient; costs three times these runs."""

        def run(m: Tree) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                stack, ends = self.ends(m, seeds)

                def measure(given: tuple[dict[str, Any], Tree]) -> dict[str, Tensor]:
                    loss, prediction = self.bound(given[0]).measure(given[1], m, self.learner.steps)
                    return {"loss": loss, "prediction": prediction}

                found = self.learner.over_tasks.each(measure, (stack, ends))
            return found["loss"].mean(), found["prediction"]

        return metasmoothness(run, m, grads)

    def inner(self, seed: int) -> Inner:
        """Return the inner loop of one run."""
        given = self.stack([seed])
        return self.bound({name: first_of(part) for name, part in given.items()}).inner()


def first_of(stack: Any) -> Any:
    """Return the first task of a stack, or the first of any stack of trees."""
    return tree_map(lambda leaf: leaf[0], stack)


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model has a layer that looks at all examples of its batch."""
    return any(isinstance(layer, _BatchNorm) for layer in model.modules())


def window(inner: Inner, carry: Carry, at: int, steps: int) -> Inner:
    """Return the inner loop of the next ``steps`` steps of a run that has arrived at step ``at`` with this carry."""
    return replace(
        inner,
        start=lambda m: carry,
        objective=lambda theta, m, t: inner.objective(theta, m, t + at),
        update=lambda grads, carry, m, t: inner.update(grads, carry, m, t + at),
        steps=steps,
    )


def fitted(learner: Learner, m: Tree) -> None:
    """Give a learner these numbers of phi."""
    with torch.no_grad():
        for name, leaf in under(m, "phi.").items():
            learner.phi.get_parameter(name).copy_(leaf)
