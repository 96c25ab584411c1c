from __future__ import annotations

import pytest
import torch
from torch import nn

from rbml.strategy import Hyper, StepInfo, Strategy, chain, momentum, sgd, weight_decay
from rbml.tree import Tree


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def follow(strategy: Strategy, model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> list[Tree]:
    """Return the parameters after every step of ``strategy`` on a squared error."""
    theta = {name: leaf.detach().clone() for name, leaf in model.named_parameters()}
    learned, fixed = strategy.initial(theta, steps, None)
    state, trail = strategy.init(theta), []
    for t in range(steps):

        def loss(at: Tree) -> torch.Tensor:
            return ((torch.func.functional_call(model, at, (x,)) - y) ** 2).mean()

        theta, state = strategy.update(torch.func.grad(loss)(theta), state, theta, learned | fixed, StepInfo(t))
        trail.append(theta)
    return trail


def assert_followed(
    trail: list[Tree], optimizer: torch.optim.Optimizer, model: nn.Module, x: torch.Tensor, y: torch.Tensor
) -> None:
    """Hold a trail against PyTorch's optimizer, step by step."""
    for theta in trail:
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()
        for name, leaf in model.named_parameters():
            assert torch.allclose(theta[name], leaf, rtol=1e-12, atol=1e-14), name


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    ("decay", "mu", "nesterov"),
    [(0.0, 0.0, False), (0.1, 0.0, False), (0.0, 0.9, False), (0.1, 0.9, False), (0.1, 0.9, True), (0.0, 0.5, True)],
)
def test_ten_steps_of_torch_optim(decay: float, mu: float, nesterov: bool, learned: bool) -> None:
    model, x, y = net(), torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    numbers = [Hyper(value) if learned else value for value in (decay, mu, 0.05)]
    strategy = chain(weight_decay(numbers[0]), momentum(numbers[1], nesterov=nesterov), sgd(numbers[2]))
    trail = follow(strategy, model, x, y, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=mu, weight_decay=decay, nesterov=nesterov)
    assert_followed(trail, optimizer, model, x, y)


def test_decay_after_the_rate_is_that_of_adamw_kind() -> None:
    """Loshchilov and Hutter: theta * (1 - rate) beside the step, not scaled by the learning rate."""
    model, x, y = net(), torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    apart, plain = (follow(chain(sgd(0.05), *rest), model, x, y, 1)[0] for rest in ((weight_decay(0.2),), ()))
    for name, leaf in model.named_parameters():
        assert torch.allclose(apart[name], plain[name] - 0.2 * leaf, rtol=1e-12)


def test_a_rate_of_each_granularity_reaches_its_own_parameters() -> None:
    theta = {"a.w": torch.ones(2), "a.b": torch.ones(1), "b.w": torch.ones(1)}
    strategy = chain(sgd(Hyper(0.0, per="layer", per_step=True)))
    phi = {"sgd.lr/a.*": torch.tensor([0.5, 0.25]), "sgd.lr/b.*": torch.tensor([2.0, 3.0])}
    grads = {name: torch.ones_like(leaf) for name, leaf in theta.items()}
    for t, (a, b) in enumerate([(0.5, 2.0), (0.25, 3.0), (0.25, 3.0)]):
        after, _ = strategy.update(grads, {}, theta, phi, StepInfo(t))
        assert [float(1 - after[name][0]) for name in theta] == [a, a, b]
    strategy = chain(sgd(Hyper(0.0, per="element")))
    phi = {"sgd.lr/a.w": torch.tensor([0.5, 2.0]), "sgd.lr/a.b": torch.zeros(1), "sgd.lr/b.w": torch.ones(1)}
    after, _ = strategy.update(grads, {}, theta, phi, StepInfo(0))
    assert after["a.w"].tolist() == [0.5, -1.0] and float(after["a.b"]) == 1 and float(after["b.w"]) == 0


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("decay", "mu", "dampening"), [(0.0, 0.9, 0.9), (0.1, 0.9, 0.3), (0.1, 0.5, 0.5)])
def test_ten_dampened_steps_of_torch_optim(decay: float, mu: float, dampening: float, learned: bool) -> None:
    model, x, y = net(), torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    numbers = [Hyper(value) if learned else value for value in (decay, mu, dampening, 0.05)]
    strategy = chain(weight_decay(numbers[0]), momentum(numbers[1], dampening=numbers[2]), sgd(numbers[3]))
    trail = follow(strategy, model, x, y, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=mu, weight_decay=decay, dampening=dampening)
    assert_followed(trail, optimizer, model, x, y)


def test_no_dampening_is_no_number_of_phi() -> None:
    assert list(momentum(0.9).hypers) == ["decay"]
    assert list(momentum(0.9, dampening=Hyper(0.0)).hypers) == ["decay", "dampening"]
