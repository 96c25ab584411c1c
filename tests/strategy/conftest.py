"""What proves a part inside a whole inner loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import func, nn
from torch.fx.experimental.proxy_tensor import make_fx

from rbml import Batch, Episode, Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, Unrolled, directional_difference
from rbml.inner import Inner
from rbml.learner.checks import Loss
from rbml.strategy import Strategy
from rbml.tasks import generator
from rbml.tree import Tree, prefixed

Proved = Callable[..., Learner]


def check_tracing(inner: Inner, m: Tree, error: Callable[[Tree, Tree], float]) -> None:
    """Hold the traced inner gradient and update against the untraced: with them a learner can be compiled."""

    def one(m: Tree) -> tuple[Tree, Tree]:
        carry = inner.start(m)
        along_theta, along_m = func.grad(lambda theta, m: inner.objective(theta, m, 0), argnums=(0, 1))(carry.theta, m)
        after = inner.update(along_theta, carry, m, 0)
        return after.theta | prefixed(after.state, "state/"), along_m

    traced = make_fx(one)({name: leaf.clone() for name, leaf in m.items()})
    for found, truth in zip(traced(m), one(m), strict=True):
        assert error(found, truth) < 1e-12


@pytest.fixture
def proved(
    roughened: Callable[[nn.Module], nn.Module],
    error: Callable[[Tree, Tree], float],
) -> Proved:
    """``proved(plan, episodes, dead=())``: every engine, every leaf by central differences, and a step traced.

    ``dead`` are the endings of the leaves whose derivative is zero; of all others it must not be. ``difference`` is the
    step of the central differences: smaller where a second derivative jumps.
    """

    def prove(
        plan: Strategy,
        episodes: Episodes,
        loss: Loss = F.cross_entropy,
        steps: int = 3,
        dead: tuple[str, ...] = (),
        module: nn.Module | None = None,
        difference: float = 3e-4,
    ) -> Learner:
        inputs, outputs = episodes.support.x[0, 0].numel(), 1 if episodes.support.y.is_floating_point() else 3
        module = models.MLP(inputs, outputs, (5,), nn.Tanh).double() if module is None else module
        learner = assemble(module, plan, steps, loss, generator=generator(3))
        roughened(learner)
        m = {name: leaf.detach() for name, leaf in learner.named_parameters()}
        support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
        inner = learner.inner(Episode(support, query))
        truth = Unrolled()(inner, m).grads
        for engine in (Adjoint(keep=1), Adjoint(hvp="reverse")):
            alive = {name: grad for name, grad in truth.items() if not name.endswith(dead or ("\n",))}
            found = engine(inner, m).grads
            assert error({name: found[name] for name in alive}, alive) < 1e-10
        for name in (name for name in m if name.startswith("phi.")):
            direction = {name: torch.randn(m[name].shape, dtype=torch.float64, generator=generator(4))}
            quotient = float(directional_difference(inner, m, direction, difference))
            along = float((truth[name] * direction[name]).sum())
            assert abs(along - quotient) < 1e-6 * abs(along) + 1e-10, (name, along, quotient)
            assert (float(truth[name].norm()) < 1e-12) == name.endswith(dead or ("\n",)), f"{name} is (not) dead"
        check_tracing(inner, m, error)
        return learner

    return prove
