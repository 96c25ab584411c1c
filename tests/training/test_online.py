"""La-MAML along a stream: against a loop of plain autograd, rates first."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import func, nn

from rbml import Batch, Stream
from rbml.algorithms import la_maml, maml
from rbml.errors import UsageError
from rbml.tasks import Replay, generator
from rbml.tasks.base import one
from rbml.training.online import learn_online


def stream() -> Stream:
    x = torch.randn(4, 3, 5, generator=generator(0)).double()
    y = torch.randint(3, (4, 3), generator=generator(1))
    return Stream(Batch(x, y), Batch(x[0], y[0]))


def test_it_is_a_loop_of_plain_autograd() -> None:
    torch.manual_seed(0)
    net = nn.Linear(5, 3).double()
    learner = la_maml(net, lr=0.05, steps=3)
    losses = list(learn_online(learner, stream(), memory=5, again=2, rate=0.3, clip=0, key=7))
    names = ("weight", "bias")
    theta0 = [leaf.detach().clone() for leaf in (net.weight, net.bias)]
    rates = [torch.full_like(leaf, 0.05) for leaf in theta0]
    task = one(Replay.of(Stream(*(Batch(part.x[None], part.y[None]) for part in stream())), 5, 2, [7]), 0)
    for t in range(4):
        for leaf in (*theta0, *rates):
            leaf.requires_grad_()
        theta, total = theta0, torch.zeros(()).double()
        both = task.at(t)
        keep = both.mask["example"]
        for step in range(3):
            x, y = task.steps.x[t, step : step + 1], task.steps.y[t, step : step + 1]
            loss = F.cross_entropy(func.functional_call(net, dict(zip(names, theta, strict=True)), (x,)), y)
            grads = torch.autograd.grad(loss, theta, create_graph=True)
            theta = [leaf - rate.relu() * grad for leaf, rate, grad in zip(theta, rates, grads, strict=True)]
            logits = func.functional_call(net, dict(zip(names, theta, strict=True)), (both.x[keep],))
            total = total + F.cross_entropy(logits, both.y[keep]) / 3
        assert losses[t] == pytest.approx(float(total.detach()), rel=1e-9)
        found = torch.autograd.grad(total, [*theta0, *rates])
        rates = [(rate - 0.3 * grad).detach() for rate, grad in zip(rates, found[2:], strict=True)]
        theta0 = [
            (leaf - rate.relu() * grad).detach() for leaf, rate, grad in zip(theta0, rates, found[:2], strict=True)
        ]
    assert torch.allclose(learner.model.weight, theta0[0], rtol=1e-9)
    assert torch.allclose(dict(learner.named_parameters())["phi.clipped_sgd.lr/weight"], rates[0], rtol=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    net = nn.Linear(5, 3).double()
    with pytest.raises(UsageError, match="the stream brings 3 examples at a time, and the learner takes 4 steps"):
        next(learn_online(la_maml(net, steps=4), stream()))
    with pytest.raises(UsageError, match=r"make the learner with rbml\.algorithms\.la_maml"):
        next(learn_online(maml(net, steps=3), stream()))


def test_a_stream_goes_on_in_its_middle_bit_for_bit() -> None:
    """What a step sees depends on the key and the step alone: a stream whose first steps are over is the same one."""
    whole = la_maml(nn.Linear(5, 3).double(), lr=0.05, steps=3)
    halves = copy.deepcopy(whole)
    losses = list(learn_online(whole, stream(), memory=5, again=2, key=7))
    first = learn_online(halves, stream(), memory=5, again=2, key=7)
    found = [next(first), next(first)]
    state = copy.deepcopy(halves.state_dict())
    first.close()
    other = la_maml(nn.Linear(5, 3).double(), lr=0.01, steps=3)
    other.load_state_dict(state)
    found += list(learn_online(other, stream(), memory=5, again=2, key=7, begin=2))
    assert found == losses
    assert all(torch.equal(leaf, whole.state_dict()[name]) for name, leaf in other.state_dict().items())
    with pytest.raises(UsageError, match="begin=5, but the stream has 4 batches"):
        next(learn_online(other, stream(), begin=5))


def test_memory_is_flat_over_a_long_stream() -> None:
    x = torch.randn(400, 2, 5, generator=generator(0))
    y = torch.randint(3, (400, 2), generator=generator(1))
    learner = la_maml(nn.Linear(5, 3), lr=0.05, steps=2)
    counts = []
    for step, _ in enumerate(learn_online(learner, Stream(Batch(x, y), Batch(x[0], y[0])), memory=20, again=2)):
        if step in (20, 399):
            gc.collect()
            counts.append(sum(issubclass(type(kept), torch.Tensor) for kept in gc.get_objects()))
    assert counts[1] <= counts[0] + 2, counts
