from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, func, nn

from rbml import Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.strategy import Hyper, StepInfo, Strategy, chain, learned_lstm, learned_optimizer, sgd
from rbml.strategy.learned_optimizer import lstm_cell, preprocessed
from rbml.tasks import generator
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Curves = Callable[..., Episodes]
Proved = Callable[..., Learner]

SMALL = 3e-5
"""The step of the differences: the logarithm and the sign turn sharply where a gradient is near zero."""


def tensors() -> Tree:
    shapes = {"w": (3, 2), "b": (3,), "gain": ()}
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def phi_of(plan: Strategy) -> Tree:
    learned, fixed = plan.initial(tensors(), 3, generator(1))
    return {name: leaf + 0.2 * torch.randn_like(leaf) for name, leaf in learned.items()} | fixed


def test_a_logarithm_and_a_sign_of_every_gradient() -> None:
    edge = math.exp(-10)
    given = torch.tensor([2.0, -1e-3, edge * (1 + 1e-9), edge * (1 - 1e-9), -edge / 2, 0.0], dtype=torch.float64)
    logarithm, sign = preprocessed(given)
    expected = [math.log(2) / 10, math.log(1e-3) / 10, -1.0, -1.0, -1.0, -1.0]
    assert torch.allclose(logarithm, torch.tensor(expected, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(sign, torch.tensor([1.0, -1.0, 1.0, 1.0, -0.5, 0.0], dtype=torch.float64), atol=1e-8)
    slopes = func.vmap(func.grad(lambda one: sum(preprocessed(one))))(given)
    assert bool(torch.isfinite(slopes).all()) and float(slopes[-1]) == pytest.approx(math.exp(10))


def test_a_cell_is_that_of_pytorch() -> None:
    cell = nn.LSTMCell(2, 3).double()
    net = {"0/input": cell.weight_ih, "0/hidden": cell.weight_hh, "0/bias": cell.bias_ih + cell.bias_hh}
    x, h, c = (torch.randn(5, size, dtype=torch.float64) for size in (2, 3, 3))
    found = lstm_cell(net, 0, x.T, h.T, c.T)
    for one, truth in zip(found, cell(x, (h, c)), strict=True):
        assert torch.allclose(one.T, truth, rtol=1e-12)


def test_the_lstm_is_that_of_pytorch_for_every_element_by_itself() -> None:
    plan = chain(learned_lstm(0.3, 0.7, hidden=4, layers=2))
    phi, start = phi_of(plan), tensors()
    net = {name.partition("net/")[2]: leaf for name, leaf in phi.items() if "net/" in name}
    truth = nn.LSTM(2, 4, 2).double()
    with torch.no_grad():
        for layer in (0, 1):
            for own, theirs in (("input", "weight_ih"), ("hidden", "weight_hh"), ("bias", "bias_ih")):
                getattr(truth, f"{theirs}_l{layer}").copy_(net[f"{layer}/{own}"])
            getattr(truth, f"bias_hh_l{layer}").zero_()
    grads = [tensors() for _ in range(4)]
    theta, state = start, plan.init(start)
    for t, one in enumerate(grads):
        theta, state = plan.update(one, state, theta, phi, StepInfo(t, 4))
    assert state["learned_lstm/w/c1"].shape == (4, 3, 2)
    for name, leaf in start.items():
        seen = torch.stack([torch.stack(preprocessed(one[name].flatten()), -1) for one in grads])
        outputs = truth(seen)[0] @ net["out/weight"].T + net["out/bias"]
        steps = [0.3 * one[name] + 0.7 * output.reshape(leaf.shape) for one, output in zip(grads, outputs, strict=True)]
        assert torch.allclose(theta[name], leaf - sum(steps), rtol=1e-11)


def test_the_perceptron_written_out_an_element_at_a_time() -> None:
    decays = (0.5, 0.9)
    plan = chain(learned_optimizer(0.3, 0.7, hidden=(4,), decays=decays))
    phi, theta = phi_of(plan), tensors()
    net = nn.Sequential(nn.Linear(16, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    leaves = {
        f"{2 * i}.{kind}": phi[f"learned_optimizer.net/{i}/{kind}"] for i in (0, 1) for kind in ("weight", "bias")
    }
    net.load_state_dict(leaves)
    net.requires_grad_(False)
    state = plan.init(theta)
    momenta = {name: [torch.zeros_like(leaf) for _ in decays] for name, leaf in theta.items()}
    for t in range(3):
        grads, before = tensors(), theta
        theta, state = plan.update(grads, state, before, phi, StepInfo(t, 5))
        time = [t / 5, *(math.tanh(t / tau - 1) for tau in (1, 3, 10, 30, 100, 300, 1000, 3000, 10000))]
        for name, grad in grads.items():
            momenta[name] = [d * m + (1 - d) * grad for d, m in zip(decays, momenta[name], strict=True)]
            features = [grad, before[name], *momenta[name]]
            features = [one / ((one**2).mean() + 1e-5).sqrt() for one in features] + list(preprocessed(grad))
            columns = [feature.flatten() for feature in features]
            for place in range(grad.numel()):
                own = torch.tensor([*(float(column[place]) for column in columns), *time], dtype=torch.float64)
                way, size = net(own)
                step = 0.3 * grad.flatten()[place] + 0.7 * way * torch.exp(size / 1000)
                assert torch.allclose(theta[name].flatten()[place], before[name].flatten()[place] - step, rtol=1e-11)


@pytest.mark.parametrize("rule", [learned_optimizer(0.4), learned_lstm(0.4)])
def test_it_starts_as_plain_sgd(rule: object, pictures: Pictures) -> None:
    module, episodes = models.MLP(4, 3, (5,)).double(), pictures(shape=(4,))
    plain, found = assemble(module, sgd(0.4), 3), assemble(module, chain(rule), 3)  # type: ignore[arg-type]
    assert torch.allclose(found.evaluate(episodes).loss, plain.evaluate(episodes).loss, rtol=1e-13)


def test_without_momenta_it_has_no_state() -> None:
    plan = chain(learned_optimizer(hidden=(4,), decays=()))
    assert plan.init(tensors()) == {}
    after, state = plan.update(tensors(), {}, tensors(), phi_of(plan), StepInfo(0))
    assert state == {} and set(after) == {"w", "b", "gain"}


@pytest.mark.parametrize("rule", [learned_optimizer(), learned_lstm()])
def test_single_precision_stays_single_and_other_heads_have_their_state(rule: object, pictures: Pictures) -> None:
    learner = assemble(models.MLP(4, 3, (5,)), chain(rule), 2)  # type: ignore[arg-type]
    assert {leaf.dtype for leaf in learner.phi.state_dict().values()} == {torch.float32}
    prediction = learner.evaluate(pictures(ways=5, shape=(4,), dtype=torch.float32), ways=5).prediction
    assert prediction.dtype == torch.float32 and prediction.shape == (3, 15, 5)


@pytest.mark.parametrize("make", [lambda: learned_lstm(hidden=0), lambda: learned_optimizer(hidden=(0,))])
def test_a_layer_without_width_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match="must be at least 1, not 0"):
        make()


def squares(prediction: Tensor, y: Tensor) -> Tensor:
    return ((prediction - y) ** 2).mean()


def test_the_hypergradient_of_the_perceptron(pictures: Pictures, proved: Proved) -> None:
    rule = learned_optimizer(Hyper(0.3, per_step=True), Hyper(0.2, per="layer"), hidden=(4, 3))
    proved(chain(rule), pictures(tasks=2, shape=(4,)), difference=SMALL)


def test_the_hypergradient_of_the_lstm(pictures: Pictures, proved: Proved) -> None:
    proved(
        chain(learned_lstm(Hyper(0.3), Hyper(0.2, per="layer"), hidden=3)),
        pictures(tasks=2, shape=(4,)),
        difference=SMALL,
    )


def test_the_hypergradient_of_the_lstm_alone_in_a_regression(curves: Curves, proved: Proved) -> None:
    proved(chain(learned_lstm(0.0, Hyper(0.2), hidden=3, layers=1)), curves(tasks=2), squares, difference=SMALL)
