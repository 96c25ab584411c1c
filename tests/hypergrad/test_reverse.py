"""Walking back by undoing steps: every carry is the true one, to the last bit where that is promised."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, func, nn
from torch.fx.experimental.proxy_tensor import make_fx

from rbml import Batch, Episode, Episodes, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled
from rbml.hypergrad.fixed_point import DENOMINATOR
from rbml.hypergrad.reverse import exactly, plainly
from rbml.inner import Carry, Inner, Undo, roll, step
from rbml.strategy import (
    Hyper,
    Strategy,
    adam,
    chain,
    clip_norm,
    cosine,
    l2,
    momentum,
    noise,
    prototype,
    sgd,
    weight_decay,
)
from rbml.strategy.undo import split
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]
EXACT = Adjoint(store="reverse", exact=True)


def on_grid(value: float) -> float:
    """Return the nearest fraction that a learned decay can have."""
    return round(value * DENOMINATOR) / DENOMINATOR


def strategy(decay: float | Hyper = 0.9, **options: object) -> Strategy:
    decayed = weight_decay(Hyper(0.1, per="layer"))
    return chain(l2(Hyper(0.1)), decayed, momentum(decay, **options), sgd(Hyper(0.1, per_step=True)), cosine(0.1))  # type: ignore[arg-type]


CHAINS: dict[str, Callable[[], Strategy]] = {
    "fixed": strategy,
    "dampened": lambda: strategy(dampening=Hyper(0.3)),
    "learned": lambda: strategy(Hyper(on_grid(0.7), bounds=(0.25, 1))),
    "an element": lambda: strategy(Hyper((0.5, 0.9), per="element", bounds=(0.25, 1))),
    "a step and layer": lambda: strategy(Hyper((0.5, 0.9), per="layer", per_step=True, bounds=(0.25, 1))),
    "prototypes": lambda: chain(prototype(), strategy()),
    "clipped, noisy": lambda: chain(noise(Hyper(0.1)), clip_norm(Hyper(0.5)), strategy(), clip_norm(0.1, name="late")),
}


@pytest.fixture
def task(roughened: Callable[[nn.Module], nn.Module], pictures: Pictures) -> Callable[..., tuple[Inner, Tree]]:
    """``task(strategy, steps, dtype=float64, weights=None)``: the inner loop of one task, and m."""

    def build(
        strategy: Strategy, steps: int, dtype: torch.dtype = torch.float64, weights: Tensor | None = None
    ) -> tuple[Inner, Tree]:
        net = roughened(models.MLP(4, 3, (5,), nn.Tanh)).to(dtype)
        learner = assemble(net, strategy, steps, generator=torch.Generator().manual_seed(3))
        support, query = (Batch(batch.x[0], batch.y[0]) for batch in pictures(shape=(4,), dtype=dtype))
        learned = {name: leaf.detach() for name, leaf in learner.named_parameters() if leaf.requires_grad}
        return learner.bind(Episode(support, query), step_weights=weights, key=torch.tensor(5)).inner(), learned

    return build


def snapped(m: Tree, low: float) -> Tree:
    """Return m with every learned decay at a fraction that fixed point can have."""

    def nearest(raw: Tensor) -> Tensor:
        value = low + (1 - low) * torch.sigmoid(raw)
        return torch.logit(((value * DENOMINATOR).round() / DENOMINATOR - low) / (1 - low))

    return {name: nearest(leaf) if name.startswith("phi.momentum.decay") else leaf for name, leaf in m.items()}


Task = Callable[..., tuple[Inner, Tree]]


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("steps", [1, 9])
def test_the_exact_walk_gives_the_exact_derivative(name: str, steps: int, task: Task, error: Errors) -> None:
    """Fixed point errs by 2**-53 a step, and by 2**-36 where a learned decay leaves its numerator's worth of units."""
    inner, m = task(CHAINS[name](), steps)
    m = snapped(m, 0.25)
    truth = Unrolled()(inner, m)
    found = EXACT(inner, m)
    noisy = any(key.startswith("phi.momentum.decay") for key in m)
    assert not found.info["wrong"]
    assert torch.allclose(found.loss, truth.loss, rtol=1e-9 if noisy else 1e-13)
    for leaf, grad in truth.grads.items():
        gap = (found.grads[leaf] - grad).norm()
        assert gap <= (1e-8 if noisy else 1e-12) * grad.norm() + 1e-13, leaf
        assert float(grad.norm()) > 0 or steps == 1, leaf


@pytest.mark.parametrize("name", CHAINS)
def test_the_plain_walk_gives_the_derivative_to_rounding(name: str, task: Task, error: Errors) -> None:
    inner, m = task(CHAINS[name](), 9)
    found = Adjoint(store="reverse")(inner, m)
    assert error(found.grads, Unrolled()(inner, m).grads) < 1e-10
    assert 0 < float(found.info["drift"]) < 1e-12


@pytest.mark.parametrize("walk", [plainly, exactly])
def test_the_losses_of_all_steps_are_undone_too(walk: Callable[..., object], task: Task, error: Errors) -> None:
    inner, m = task(strategy(), 4, weights=torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64))
    found = Adjoint(store="reverse", exact=walk is exactly)(inner, m)
    assert error(found.grads, Unrolled()(inner, m).grads) < 1e-12
    if walk is exactly:
        assert not found.info["wrong"]


def forwards(inner: Inner, m: Tree, steps: int) -> list[Carry]:
    carries = [inner.start(m)]
    for t in range(steps):
        carries.append(step(inner, carries[-1], m, t)[1])
    return carries


def test_the_plain_walk_finds_the_carries_and_says_how_far_it_drifts(task: Task) -> None:
    """Momentum 0.9 by plain arithmetic: the error grows by 1 / 0.9 a step, and more the stiffer the problem."""
    drifts = {}
    for dtype in (torch.float32, torch.float64):
        for steps in (5, 60):
            inner, m = task(strategy(), steps, dtype)
            truth = forwards(inner, m, steps)
            trail = plainly(inner, m, 0)
            for t, grads, found, *_ in trail.back:
                assert torch.allclose(found.theta["head.bias"], truth[t].theta["head.bias"], rtol=1e-2, atol=1e-2)
                assert set(grads) == set(found.theta) and set(found.state) == set(truth[t].state)
            drifts[dtype, steps] = float(trail.report(found)["drift"])
    assert drifts[torch.float64, 5] < 1e-14 and drifts[torch.float32, 5] < 1e-5
    assert all(drifts[dtype, 60] > 3 * drifts[dtype, 5] for dtype in (torch.float32, torch.float64))


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float64, 1000), (torch.float32, 200)])
def test_a_thousand_steps_come_back_bit_for_bit(dtype: torch.dtype, steps: int) -> None:
    """A learned decay an element, weight decay and a rate: the start comes back, and so every carry on the way."""
    inner, m = by_hand(dtype, steps)
    trail = exactly(inner, m, 0)
    carry = roll(trail.inner, inner.start(m), m)  # in floating point, near the run in fixed point
    assert torch.allclose(carry.theta["w"], trail.last.theta["w"], rtol=1e-3)
    for _, _, carry, *_ in trail.back:  # noqa: B007
        pass
    info = trail.report(carry)
    assert int(info["wrong"]) == 0 and 0 < float(info["largest"]) < 2048
    assert math.log2(1 / 0.8) < float(info["bits"]) < 1.1 * math.log2(1 / 0.8) + 64 / steps
    for tree, truth in zip(carry, inner.start(m), strict=True):
        for name, leaf in truth.items():
            assert (tree[name] - leaf).abs().max() <= 2.0**-53


def by_hand(dtype: torch.dtype, steps: int) -> tuple[Inner, Tree]:
    """Return the steps of a two-layer network, without a learner: a learner's steps take longer."""
    x, y = torch.randn(6, 3).to(dtype), torch.randn(6).to(dtype)

    def start(m: Tree) -> Carry:
        theta = {"w": m["w"], "v": m["v"]}
        return Carry(theta, {f"sum/{name}": torch.zeros_like(leaf) for name, leaf in theta.items()})

    def objective(theta: Tree, m: Tree, t: int) -> Tensor:
        return ((torch.tanh(x @ theta["w"]) @ theta["v"] - y) ** 2).mean()

    def decay(m: Tree, t: int) -> Tree:
        return {f"sum/{name}": 0.8 + 0.2 * torch.sigmoid(m[f"decay/{name}"]) for name in ("w", "v")}

    def inflow(grads: Tree, theta: Tree, m: Tree, t: int) -> Tree:
        return {f"sum/{name}": grad + 0.01 * theta[name] for name, grad in grads.items()}

    def outflow(sums: Tree, m: Tree, t: int) -> Tree:
        return {name: m["lr"] * sums[f"sum/{name}"] for name in ("w", "v")}

    def update(grads: Tree, carry: Carry, m: Tree, t: int) -> Carry:
        flow, rates = inflow(grads, carry.theta, m, t), decay(m, t)
        sums = {name: rates[name] * carry.state[name] + flow[name] for name in flow}
        out = outflow(sums, m, t)
        return Carry({name: leaf - out[name] for name, leaf in carry.theta.items()}, sums)

    undo = Undo(decay, inflow, outflow, lambda theta, m, t: {}, None, (0.8, 1.0))
    outer = lambda carry, m: (carry.theta["w"].square().sum(), {})  # noqa: E731
    m = {"w": torch.randn(3, 4), "v": torch.randn(4), "decay/w": torch.randn(3, 4), "decay/v": torch.randn(4)}
    m = {name: leaf.to(dtype) for name, leaf in m.items()} | {"lr": torch.tensor(0.02, dtype=dtype)}
    return Inner(start, objective, update, outer, steps, {}, lambda: undo), m


@pytest.mark.parametrize("window", [0, 1, 4, 9, 20])
def test_a_window_of_the_exact_walk(window: int, task: Task, error: Errors) -> None:
    inner, m = task(strategy(), 9)
    found = Adjoint(store="reverse", exact=True, window=window)(inner, m)
    assert error(found.grads, Unrolled(window=window)(inner, m).grads) < 1e-11
    assert not found.info["wrong"]


def test_tasks_are_vectorised(pictures: Pictures, roughened: Callable[[nn.Module], nn.Module], error: Errors) -> None:
    for decay in (0.9, Hyper(on_grid(0.7), bounds=(0.25, 1))):
        learner = assemble(roughened(models.MLP(4, 3, (5,), nn.Tanh)), strategy(decay), 6, hypergradient=EXACT)
        found = learner.meta_gradient(pictures(shape=(4,)))
        assert found.info["wrong"].tolist() == [0, 0, 0] and found.info["bits"].shape == (3,)
        learner.hypergradient = Adjoint(keep=1)
        assert error(found.grads, learner.meta_gradient(pictures(shape=(4,))).grads) < 1e-5  # the decay is a fraction


def grads_of(engine: Adjoint, inner: Inner, m: Tree) -> Tree:
    return engine(inner, m).grads


def test_it_can_be_traced(task: Task, error: Errors) -> None:
    inner, m = task(strategy(Hyper(0.7, bounds=(0.25, 1))), 2)
    run = partial(grads_of, EXACT, inner)
    assert error(make_fx(run)(m)(m), run(m)) < 1e-14


def test_the_largest_number_tells_of_an_overflow(task: Task) -> None:
    inner, m = task(chain(momentum(0.9), sgd(100.0)), 30)
    m = {name: 3000 * leaf for name, leaf in m.items()}
    assert float(EXACT(inner, m).info["largest"]) > 2048
    inner, m = task(strategy(), 3)
    assert float(EXACT(inner, m).info["largest"]) < 10


REFUSED: dict[str, tuple[Strategy, str]] = {
    "plain": (chain(weight_decay(0.1), sgd(0.1)), "weight_decay, sgd has none"),
    "nesterov": (chain(momentum(nesterov=True), sgd(0.1)), "a step of momentum cannot be undone"),
    "adam": (chain(adam(), sgd(0.1)), "a step of adam cannot be undone"),
    "adam and momentum": (chain(adam(), momentum(), sgd(0.1)), "a step of adam cannot be undone"),
    "two": (chain(momentum(), momentum(name="again"), sgd(0.1)), "momentum, again, sgd has 2"),
    "decoupled": (
        chain(momentum(), sgd(0.1), weight_decay(0.1)),
        "weight_decay comes after momentum and may depend on",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("exact", [False, True])
def test_what_cannot_be_undone_is_refused_by_name(name: str, exact: bool, task: Task) -> None:
    plan, text = REFUSED[name]
    inner, m = task(plan, 2)
    with pytest.raises(UsageError, match=text) as caught:
        Adjoint(store="reverse", exact=exact)(inner, m)
    assert "segments" in str(caught.value)


def test_a_decay_of_zero_and_one_without_bounds_are_refused(task: Task) -> None:
    inner, m = task(strategy(0.0), 2)
    for exact in (False, True):
        with pytest.raises(UsageError, match="decay"):
            Adjoint(store="reverse", exact=exact)(inner, m)
    inner, m = task(strategy(Hyper(0.9)), 2)
    with pytest.raises(UsageError, match=r"Hyper\(0.9, bounds=\(0.5, 1\)\)"):
        EXACT(inner, m)
    assert Adjoint(store="reverse")(inner, m).info["drift"] < 1e-14


def test_an_inner_loop_that_says_nothing_of_undoing(task: Task) -> None:
    inner, m = task(strategy(), 2)
    bare = Inner(inner.start, inner.objective, inner.update, inner.outer, 2)
    with pytest.raises(UsageError, match="steps of this inner loop cannot be undone"):
        Adjoint(store="reverse")(bare, m)


def test_exact_is_for_one_store() -> None:
    with pytest.raises(UsageError, match="exact=True is for store='reverse'"):
        Adjoint(exact=True)


def test_a_fixed_decay_is_written_as_the_fraction_that_was_meant() -> None:
    for value, parts in ((0.9, (9, 10)), (0.999, (999, 1000)), (1 / 3, (1, 3))):
        ratio = split(strategy(value)).ratio
        assert ratio is not None and (ratio.numerator, ratio.denominator) == parts
    assert split(strategy(Hyper((0.5, 0.9), learn=False))).ratio is None
    assert split(strategy(Hyper((0.5, 0.9), learn=False))).span == (0.5, 0.9)


def test_no_derivative_leaves_a_walk(task: Task) -> None:
    """An engine may run inside a transform of the caller's."""
    inner, m = task(strategy(), 3)
    truth = EXACT(inner, m).grads["phi.sgd.lr"]
    found = func.vmap(lambda lr: EXACT(inner, m | {"phi.sgd.lr": lr}).grads["phi.sgd.lr"])(
        torch.stack([m["phi.sgd.lr"]] * 2)
    )
    assert torch.allclose(found[1], truth, rtol=1e-12)
