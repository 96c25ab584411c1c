from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn

from rbml import Episodes, Learner
from rbml.strategy import (
    Hyper,
    Rule,
    StepInfo,
    Strategy,
    adagrad,
    adam,
    chain,
    inverse_time,
    lion,
    momentum,
    nadam,
    rmsprop,
    sgd,
    weight_decay,
)
from rbml.strategy.adaptive import root
from rbml.tree import Tree, tmap

STEPS = 12
Number = Callable[[float], float | Hyper]
Optimizer = Callable[[Any], torch.optim.Optimizer]
Case = tuple[Callable[[Number], Strategy], Optimizer]

NUMBERS: dict[str, Number] = {
    "fixed": lambda value: value,
    "learned": lambda value: Hyper(value),
    "learned per element and step": lambda value: Hyper(value, per="element", per_step=True),
}


def cases() -> dict[str, Case]:
    """Return every optimizer of PyTorch that the rules express, in every combination of its options."""
    found: dict[str, Case] = {}
    for wd, mu, centered in product((0.0, 0.1), (0.0, 0.9), (False, True)):
        found[f"rmsprop {wd} {mu} {centered}"] = (
            lambda n, wd=wd, mu=mu, c=centered: chain(
                weight_decay(n(wd)), rmsprop(n(0.95), n(1e-6), c), momentum(n(mu)), sgd(n(0.01))
            ),
            lambda p, wd=wd, mu=mu, c=centered: torch.optim.RMSprop(
                p, 0.01, 0.95, 1e-6, weight_decay=wd, momentum=mu, centered=c
            ),
        )
    for wd, rate, start in product((0.0, 0.1), (0.0, 0.05), (0.0, 0.2)):
        found[f"adagrad {wd} {rate} {start}"] = (
            lambda n, wd=wd, rate=rate, s=start: chain(
                weight_decay(n(wd)), adagrad(n(s)), sgd(n(0.05)), inverse_time(n(rate))
            ),
            lambda p, wd=wd, rate=rate, s=start: torch.optim.Adagrad(
                p, 0.05, lr_decay=rate, weight_decay=wd, initial_accumulator_value=s
            ),
        )
    for wd, amsgrad, betas in product((0.0, 0.1), (False, True), ((0.9, 0.999), (0.5, 0.6))):
        options = {"betas": betas, "eps": 1e-6, "weight_decay": wd, "amsgrad": amsgrad}
        found[f"adam {wd} {amsgrad} {betas}"] = (
            lambda n, wd=wd, a=amsgrad, b=betas: chain(
                weight_decay(n(wd)), adam(n(b[0]), n(b[1]), n(1e-6), a), sgd(n(0.02))
            ),
            lambda p, o=options: torch.optim.Adam(p, 0.02, **o),
        )
        found[f"adamw {wd} {amsgrad} {betas}"] = (
            lambda n, wd=wd, a=amsgrad, b=betas: chain(
                adam(n(b[0]), n(b[1]), n(1e-6), a), weight_decay(n(wd)), sgd(n(0.02))
            ),
            lambda p, o=options: torch.optim.AdamW(p, 0.02, **o),
        )
    for wd, apart, decay in product((0.0, 0.1), (False, True), (4e-3, 0.3)):
        found[f"nadam {wd} {apart} {decay}"] = (
            lambda n, wd=wd, apart=apart, k=decay: chain(
                *[weight_decay(n(wd))][apart:],
                nadam(n(0.8), n(0.99), n(1e-8), n(k)),
                *[weight_decay(n(wd))][: int(apart)],
                sgd(n(0.02)),
            ),
            lambda p, wd=wd, apart=apart, k=decay: torch.optim.NAdam(
                p, 0.02, (0.8, 0.99), weight_decay=wd, momentum_decay=k, decoupled_weight_decay=apart
            ),
        )
    return found


CASES = cases()


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a net and data whose first input is always zero: some gradients are exactly zero at every step."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    x[:, 0] = 0
    return net, x, y


def follow(strategy: Strategy, net: nn.Module, x: Tensor, y: Tensor, steps: int = STEPS) -> list[Tree]:
    """Return the parameters after every step of ``strategy`` on a squared error."""
    theta = {name: leaf.detach().clone() for name, leaf in net.named_parameters()}
    learned, fixed = strategy.initial(theta, steps, None)
    state, trail = strategy.init(theta), []
    for t in range(steps):
        grads = func.grad(lambda at: ((func.functional_call(net, at, (x,)) - y) ** 2).mean())(theta)
        theta, state = strategy.update(grads, state, theta, learned | fixed, StepInfo(t, steps))
        trail.append(theta)
    return trail


@pytest.fixture
def wide() -> Iterator[None]:
    """PyTorch's NAdam keeps the product of its mu in the default type, whatever the type of the parameters is."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", CASES)
def test_every_step_is_that_of_torch_optim(name: str, number: str) -> None:
    net, x, y = problem()
    strategy, optimizer_of = CASES[name]
    trail = follow(strategy(NUMBERS[number]), net, x, y)
    optimizer = optimizer_of(net.parameters())
    for theta in trail:
        optimizer.zero_grad()
        ((net(x) - y) ** 2).mean().backward()
        optimizer.step()
        for key, leaf in net.named_parameters():
            assert torch.allclose(theta[key], leaf, rtol=1e-13, atol=1e-14), key
    assert (trail[-1]["0.weight"] - trail[0]["0.weight"]).abs().max() > 0.01


def test_lion_is_its_written_out_loop() -> None:
    net, x, y = problem()
    trail = follow(chain(lion(0.8, 0.95), weight_decay(0.1), sgd(0.02)), net, x, y)
    average = [torch.zeros_like(leaf) for leaf in net.parameters()]
    for theta in trail:
        grads = torch.autograd.grad(((net(x) - y) ** 2).mean(), list(net.parameters()))
        with torch.no_grad():
            for leaf, grad, mean in zip(net.parameters(), grads, average, strict=True):
                leaf -= 0.02 * (torch.sign(0.8 * mean + 0.2 * grad) + 0.1 * leaf)
                mean.mul_(0.95).add_(0.05 * grad)
        assert all(torch.allclose(theta[key], leaf, rtol=1e-13) for key, leaf in net.named_parameters())


# ---------------------------------------------------------------------------------------------------- derivatives

RULES: dict[str, tuple[Callable[..., Rule], dict[str, float]]] = {
    "rmsprop": (rmsprop, {"alpha": 0.9, "eps": 0.02}),
    "rmsprop, centred": (lambda **numbers: rmsprop(centered=True, **numbers), {"alpha": 0.8, "eps": 0.02}),
    "adagrad": (adagrad, {"start": 0.1, "eps": 0.02}),
    "adam": (adam, {"beta1": 0.8, "beta2": 0.95, "eps": 0.02}),
    "adam, amsgrad": (lambda **numbers: adam(amsgrad=True, **numbers), {"beta1": 0.8, "beta2": 0.3, "eps": 0.02}),
    "nadam": (nadam, {"beta1": 0.8, "beta2": 0.95, "eps": 0.02, "momentum_decay": 0.1}),
    "lion": (lion, {"beta1": 0.8, "beta2": 0.95, "width": 0.3}),
    "momentum": (momentum, {"decay": 0.8, "dampening": 0.3}),
    "momentum, nesterov": (lambda **n: momentum(nesterov=True, **n), {"decay": 0.8, "dampening": 0.1}),
}

OPEN = ("eps", "start", "width", "momentum_decay")


def learned(name: str) -> Strategy:
    make, numbers = RULES[name]
    own = {key: Hyper(value, bounds=(0, None if key in OPEN else 1)) for key, value in numbers.items()}
    return chain(weight_decay(Hyper(0.05)), make(**own), weight_decay(Hyper(0.03), name="apart"), sgd(Hyper(0.1)))


@pytest.mark.parametrize("name", RULES)
def test_three_steps_have_their_derivatives(name: str) -> None:
    """PyTorch's own cases of differentiable optimizers, all numbers at once: rate, betas, eps, decay, parameters."""
    strategy = learned(name)
    start = {"w": torch.tensor([0.7, -1.2, 0.4], dtype=torch.float64)}
    phi, _ = strategy.initial(start, 3, None)
    names = list(phi)
    assert len(names) == 3 + len(RULES[name][1])

    def run(w: Tensor, *numbers: Tensor) -> Tensor:
        theta: Tree = {"w": w}
        state = strategy.init(theta)
        for t in range(3):
            grads = {"w": torch.cos(theta["w"]) + theta["w"].roll(1)}
            theta, state = strategy.update(grads, state, theta, dict(zip(names, numbers, strict=True)), StepInfo(t, 3))
        return theta["w"]

    given = [leaf.clone().requires_grad_() for leaf in (start["w"], *phi.values())]
    assert torch.autograd.gradcheck(run, given, rtol=1e-6, atol=1e-9, check_forward_ad=True, check_batched_grad=True)
    for key, grad in zip(["w", *names], torch.autograd.grad(run(*given).sum(), given), strict=True):
        assert grad.abs().max() > 1e-6, f"nothing reaches {key}"


@pytest.mark.parametrize("decoupled", [False, True])
def test_the_derivatives_are_those_of_torchs_differentiable_adam(decoupled: bool) -> None:
    start = torch.tensor([0.7, -1.2, 0.4], dtype=torch.float64)
    slopes = [torch.randn(3, dtype=torch.float64) for _ in range(4)]
    values = {"lr": 0.1, "beta1": 0.8, "beta2": 0.95, "rate": 0.05}

    def theirs(lr: Tensor, beta1: Tensor, beta2: Tensor, rate: Tensor) -> Tensor:
        w = start.clone().requires_grad_()
        kind = torch.optim.AdamW if decoupled else torch.optim.Adam
        moved = w.clone()
        optimizer = kind([moved], lr, (beta1, beta2), 1e-3, rate, differentiable=True)
        for slope in slopes:
            moved.grad = slope.clone()
            optimizer.step()
        return (moved**2).sum()

    def ours(lr: Tensor, beta1: Tensor, beta2: Tensor, rate: Tensor) -> Tensor:
        parts = [weight_decay(Hyper(1.0)), adam(Hyper(1.0), Hyper(1.0), 1e-3)]
        plan = chain(*(parts[::-1] if decoupled else parts), sgd(Hyper(1.0)))
        phi = {"sgd.lr": lr, "adam.beta1": beta1, "adam.beta2": beta2, "weight_decay.rate": rate}
        phi |= {"adam.eps": torch.tensor(1e-3, dtype=torch.float64)}
        theta: Tree = {"w": start}
        state = plan.init(theta)
        for t, slope in enumerate(slopes):
            theta, state = plan.update({"w": slope}, state, theta, phi, StepInfo(t, 4))
        return (theta["w"] ** 2).sum()

    grads = []
    for run in (theirs, ours):
        inputs = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values.values()]
        grads.append(torch.autograd.grad(run(*inputs), inputs))
    for key, truth, own in zip(values, *grads, strict=True):
        assert torch.allclose(own, truth, rtol=1e-9), key


@pytest.mark.parametrize("name", [name for name in RULES if "momentum" not in name])
def test_the_engines_agree_through_a_whole_inner_loop(
    name: str, proved: Callable[..., Learner], curves: Callable[..., Episodes]
) -> None:
    """The second derivative jumps where a gradient changes its sign, so that the differences must be short."""
    proved(learned(name), curves(), nn.functional.mse_loss, difference=3e-5)


SLOPES = {
    "rmsprop": lambda eps: rmsprop(eps=eps),
    "rmsprop, centred": lambda eps: rmsprop(eps=eps, centered=True),
    "adagrad": lambda eps: adagrad(eps=eps),
    "adam": lambda eps: adam(eps=eps),
    "adam, amsgrad": lambda eps: adam(eps=eps, amsgrad=True),
    "nadam": lambda eps: nadam(eps=eps),
    "lion": lambda eps: lion(0.0, width=eps),
}


@pytest.mark.parametrize("eps", [1e-8, 1e-2])
@pytest.mark.parametrize("name", SLOPES)
def test_where_the_gradient_is_zero_the_slope_is_one_over_eps(name: str, eps: float) -> None:
    """The limit: d / (|d| + eps) has the slope 1 / eps at zero, where the root by itself has none."""
    plan = chain(SLOPES[name](eps))
    theta = {"w": torch.zeros(2, dtype=torch.float64)}
    phi = plan.initial(theta, 1, None)[1]

    def moved(d: Tensor) -> Tensor:
        return -plan.update({"w": d}, plan.init(theta), theta, phi, StepInfo(0))[0]["w"]

    at = torch.zeros(2, dtype=torch.float64)
    truth = torch.eye(2, dtype=torch.float64) / eps
    if name == "nadam":  # it looks ahead
        now, ahead = (0.9 * (1 - 0.5 * 0.96 ** (t * 4e-3)) for t in (1, 2))
        truth = truth * (1 + ahead * 0.1 / (1 - now * ahead))
    assert torch.equal(moved(at), at)
    assert torch.allclose(func.jacrev(moved)(at), truth, rtol=1e-12)
    assert torch.allclose(func.jacfwd(moved)(at), truth, rtol=1e-12)
    tiny = torch.tensor([1e-6 * eps, 0.0], dtype=torch.float64)
    quotient = (moved(tiny) - moved(-tiny))[0] / (2e-6 * eps)
    assert torch.allclose(quotient, truth[0, 0], rtol=1e-4)


def test_the_root_is_exact_and_flat_where_there_is_none() -> None:
    squares = torch.tensor([-1e-20, 0.0, 4.0, 1e-300, 2.0], dtype=torch.float64)
    assert torch.equal(root(squares), torch.sqrt(squares.clamp(min=0)))
    assert func.grad(lambda s: root(s).sum())(squares)[:3].tolist() == [0, 0, 0.25]
    assert root(torch.ones(2)).dtype == torch.float32


def test_a_sign_has_nothing_to_learn_and_a_width_brings_it_back() -> None:
    theta = {"w": torch.tensor([0.5, -0.3], dtype=torch.float64)}

    def slopes(width: float) -> Tree:
        plan = chain(lion(Hyper(0.9), Hyper(0.99), width), sgd(Hyper(0.1)))
        learned, fixed = plan.initial(theta, 2, None)

        def run(phi: Tree) -> Tensor:
            now, state = theta, plan.init(theta)
            for t in range(3):
                now, state = plan.update(tmap(torch.sin, now), state, now, phi | fixed, StepInfo(t))
            return (now["w"] ** 2).sum()

        return func.grad(run)(learned)

    sharp, smooth = slopes(0.0), slopes(0.1)
    assert float(sharp["lion.beta1"]) == 0 == float(sharp["lion.beta2"]) and float(sharp["sgd.lr"]) != 0
    assert all(float(leaf) != 0 for leaf in smooth.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RULES)
def test_the_type_of_theta_is_kept(name: str, dtype: torch.dtype) -> None:
    plan, theta = learned(name), {"w": torch.ones(3, dtype=dtype)}
    phi, _ = plan.initial(theta, 1, None)
    after, state = plan.update(theta, plan.init(theta), theta, phi, StepInfo(1, 2))
    assert {leaf.dtype for leaf in after.values()} == {dtype}
    # A running mean in half precision does not move: 1 - 0.999 is below its resolution.
    assert {leaf.dtype for leaf in state.values()} == {torch.promote_types(dtype, torch.float32)}
