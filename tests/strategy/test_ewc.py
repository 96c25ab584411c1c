"""Elastic weight consolidation: against a loop by hand, and what it is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import func, nn

from rbml import Batch, Stream
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.strategy import Hyper, chain, ewc, sgd
from rbml.tasks import generator
from rbml.tasks.base import one
from rbml.tree import Tree


def streams() -> Stream:
    x = torch.randn(1, 9, 1, 3, generator=generator(0)).double()
    y = torch.arange(9).reshape(1, 9, 1) // 3
    return Stream(Batch(x, y), Batch(x[:, :, 0], y[:, :, 0]))


def test_it_is_a_loop_that_keeps_what_was_important(error: Callable[[Tree, Tree], float]) -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 3).double()
    learner = assemble(net, chain(ewc(Hyper(2.0), every=3), sgd(Hyper(0.4))), 9)
    found = learner.meta_gradient(streams())
    m = {name: leaf.detach().requires_grad_() for name, leaf in learner.named_parameters()}
    names, task = ("weight", "bias"), one(streams(), 0)
    theta = [m[f"model.{name}"] for name in names]
    fisher, anchor = [torch.zeros_like(leaf) for leaf in theta], theta
    for part in range(3):
        squares = [torch.zeros_like(leaf) for leaf in theta]
        for t in range(3 * part, 3 * part + 3):
            loss = F.cross_entropy(
                func.functional_call(net, dict(zip(names, theta, strict=True)), (task.at(t).x,)), task.at(t).y
            )
            grads = torch.autograd.grad(loss, theta, create_graph=True)
            squares = [s + g**2 / 3 for s, g in zip(squares, grads, strict=True)]
            pull = [m["phi.ewc.strength"] * f * (p - a) for f, p, a in zip(fisher, theta, anchor, strict=True)]
            before, theta = theta, [p - m["phi.sgd.lr"] * (g + d) for p, g, d in zip(theta, grads, pull, strict=True)]
        fisher, anchor = [f + s for f, s in zip(fisher, squares, strict=True)], before
    outer = F.cross_entropy(
        func.functional_call(net, dict(zip(names, theta, strict=True)), (task.query.x,)), task.query.y
    )
    truth = dict(zip(m, torch.autograd.grad(outer, list(m.values())), strict=True))
    assert torch.allclose(found.loss, outer, rtol=1e-12) and error(found.grads, truth) < 1e-10


def test_a_strong_pull_forgets_less() -> None:
    torch.manual_seed(0)
    early = streams()._replace(query=Batch(streams().query.x[:, :3], streams().query.y[:, :3]))
    losses = [
        float(assemble(nn.Linear(3, 3).double(), chain(ewc(strength, 3), sgd(0.5)), 9).meta_gradient(early).loss)
        for strength in (0.0, 2.0)
    ]
    assert losses[1] < losses[0]
    with pytest.raises(UsageError, match="every, the steps of one part of a stream, must be at least 1, not 0"):
        ewc(every=0)
