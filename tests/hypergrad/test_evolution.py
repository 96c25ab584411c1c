"""Evolution strategies: unbiased within three standard errors, and the plain loop of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, func, nn

from rbml import Episodes, models, random
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Evolution, Unrolled
from rbml.hypergrad.base import MetaGradient
from rbml.inner import Carry, Inner, roll
from rbml.strategy import Hyper, chain, l2, momentum, sgd
from rbml.tree import Tree

Errors = Callable[[Tree, Tree], float]


def valley(outer: Callable[[Tree], Tensor]) -> Inner:
    """Return a loss of m alone, without an inner loop."""
    return Inner(lambda m: Carry({}, {}), None, None, lambda carry, m: (outer(m), {}), 0)  # type: ignore[arg-type]


def ridge(steps: int) -> tuple[Inner, Tree]:
    """Return descent on a ridge with momentum: the start, the rate, the decay and the strength are learned."""
    source = torch.Generator().manual_seed(3)
    a = torch.randn(3, 3, dtype=torch.float64, generator=source)
    a, c, q = a @ a.T / 3 + torch.eye(3).double(), torch.ones(3).double(), torch.tensor([1.0, -1.0, 0.5]).double()

    def update(grads: Tree, carry: Carry, m: Tree, t: int) -> Carry:
        v = m["decay"] * carry.state["v"] + grads["w"]
        return Carry({"w": carry.theta["w"] - m["lr"] * v}, {"v": v})

    inner = Inner(
        lambda m: Carry({"w": m["start"]}, {"v": torch.zeros(3).double()}),
        lambda theta, m, t: (
            0.5 * theta["w"] @ a @ theta["w"] - c @ theta["w"] + 0.5 * m["l2"] * (theta["w"] ** 2).sum()
        ),
        update,
        lambda carry, m: (0.5 * ((carry.theta["w"] - q) ** 2).sum(), {"theta": carry.theta["w"]}),
        steps,
    )
    numbers = {"start": [0.3, -0.2, 0.9], "lr": 0.1, "decay": 0.4, "l2": 0.2}
    return inner, {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}


def window_losses(inner: Inner, window: int) -> Callable[[Tree], Tensor]:
    """Return m -> the mean of the losses at the ends of the windows."""

    def mean(m: Tree) -> Tensor:
        carry, losses = inner.start(m), []
        for first in range(0, inner.steps, window):
            carry = roll(inner, carry, m, first, min(first + window, inner.steps))
            losses.append(inner.outer(carry, m)[0])
        return torch.stack(losses).mean()

    return mean


def scores(engine: Evolution, inner: Inner, m: Tree, truth: Tree, repeats: int) -> tuple[Tensor, float, float]:
    """Return by how many standard errors each element of m is off, and the error that is said and that is measured."""
    runs: list[MetaGradient] = [replace(engine, seed=seed)(inner, m) for seed in range(repeats)]
    grads = torch.stack([torch.cat([run.grads[name].flatten() for name in m]) for run in runs])
    off = grads.mean(0) - torch.cat([truth[name].flatten() for name in m])
    said = torch.stack([run.info["standard_error"] for run in runs]).mean()
    return off / (grads.std(0) / math.sqrt(repeats)), float(said), float(grads.var(0).sum().sqrt())


# ------------------------------------------------------------------------------------------------------------ unbiased


def test_a_quadratic_loss_is_the_same_when_smoothed() -> None:
    a = torch.tensor([[2.0, 0.3, 0.0], [0.3, 1.0, -0.4], [0.0, -0.4, 3.0]]).double()
    inner = valley(lambda m: 0.5 * m["x"] @ a @ m["x"] + 4 * m["y"] * m["x"].sum())
    m = {"x": torch.tensor([1.0, -2.0, 0.5]).double(), "y": torch.tensor(0.7).double()}
    truth = {"x": a @ m["x"] + 4 * m["y"], "y": 4 * m["x"].sum()}
    off, said, measured = scores(Evolution(sigma=2.0, pairs=50), inner, m, truth, 100)
    assert float(off.abs().max()) < 3, off
    assert abs(said / measured - 1) < 0.15, "the standard error that it reports is the one that it has"


def test_it_is_the_derivative_of_the_smoothed_loss() -> None:
    """E (m + s e)^3 has the derivative 3 m^2 + 3 s^2, and E sign(m + s e) twice the normal density at m / s over s."""
    m = {"x": torch.tensor([1.0, -0.5]).double()}
    truth = {"x": 3 * m["x"] ** 2 + 3 * 0.5**2}
    off, _, _ = scores(Evolution(sigma=0.5, pairs=50), valley(lambda m: (m["x"] ** 3).sum()), m, truth, 100)
    assert float(off.abs().max()) < 3, off
    density = torch.exp(-0.5 * (m["x"] / 0.5) ** 2) / math.sqrt(2 * math.pi) / 0.5
    jump = valley(lambda m: torch.sign(m["x"]).sum())
    off, _, _ = scores(Evolution(sigma=0.5, pairs=50), jump, m, {"x": 2 * density}, 100)
    assert float(off.abs().max()) < 3, off


@pytest.mark.parametrize("window", [None, 4, 2])
def test_through_an_inner_loop_it_is_unbiased(window: int | None) -> None:
    inner, m = ridge(4)
    truth = Unrolled()(inner, m).grads if window is None else func.grad(window_losses(inner, window))(m)
    off, said, measured = scores(Evolution(sigma=1e-3, pairs=40, window=window), inner, m, truth, 40)
    assert float(off.abs().max()) < 3, off
    assert abs(said / measured - 1) < 0.25


def test_cut_runs_without_the_walk_would_be_biased() -> None:
    """The truncated derivative is another: what PES is for."""
    inner, m = ridge(4)

    def cut(m: Tree) -> Tensor:
        early = roll(inner, inner.start(m), m, 0, 2)
        first = inner.outer(early, m)[0]
        fixed = Carry({"w": early.theta["w"].detach()}, {"v": early.state["v"].detach()})
        return (first + inner.outer(roll(inner, fixed, m, 2, 4), m)[0]) / 2

    off, _, _ = scores(Evolution(sigma=1e-3, pairs=40, window=2), inner, m, func.grad(cut)(m), 40)
    assert float(off.abs().max()) > 6


def test_on_a_network_it_is_unbiased(pictures: Callable[..., Episodes]) -> None:
    rules = chain(l2(Hyper(0.1)), momentum(Hyper(0.5)), sgd(Hyper(0.2)))
    learner = assemble(models.MLP(4, 3, (4,), nn.Tanh).double(), rules, 3, step_weights=[0.2, 0.3, 0.5])
    for parameter in learner.model.parameters():
        parameter.requires_grad_(False)
    learner.phi.requires_grad_(True)
    episodes = pictures(tasks=2, shape=(4,))
    learner.hypergradient = Unrolled()
    truth = learner.meta_gradient(episodes)
    runs = []
    for seed in range(30):
        learner.hypergradient = Evolution(sigma=1e-3, pairs=20, seed=seed)
        runs.append(learner.meta_gradient(episodes))
    assert len(truth.grads) >= 3 and torch.allclose(runs[0].loss, truth.loss, rtol=1e-12)
    for name, leaf in truth.grads.items():
        grads = torch.stack([run.grads[name] for run in runs])
        assert float(((grads.mean(0) - leaf) / (grads.std(0) / math.sqrt(30))).abs().max()) < 3, name


# -------------------------------------------------------------------------------------------------- what it computes


def by_hand(engine: Evolution, inner: Inner, ms: list[Tree], window: int) -> list[Tree]:
    """Return the estimate of every window as the paper's loop does: pair by pair, each window with its own m."""
    found: list[Tree] = []
    pairs: list[list[Carry]] = [[] for _ in range(engine.pairs)]
    walks: list[Tree] = [{name: torch.zeros_like(leaf) for name, leaf in ms[0].items()} for _ in pairs]
    for number, m in enumerate(ms):
        first, total = number * window, {name: torch.zeros_like(leaf) for name, leaf in m.items()}
        for index, key in enumerate(random.split(random.digest(m, engine.seed), engine.pairs)):
            noise = {name: engine.sigma * random.normal(key, f"{name}|{first}", leaf) for name, leaf in m.items()}
            losses, carries = [], []
            for side, sign in enumerate((1, -1)):
                moved = {name: leaf + sign * noise[name] for name, leaf in m.items()}
                carry = roll(inner, pairs[index][side] if number else inner.start(moved), moved, first, first + window)
                losses.append(inner.outer(carry, moved)[0])
                carries.append(carry)
            pairs[index] = carries
            for name in m:
                walks[index][name] = walks[index][name] + noise[name]
                total[name] += walks[index][name] * (losses[0] - losses[1])
        found.append({name: leaf / (2 * engine.pairs * engine.sigma**2) for name, leaf in total.items()})
    return found


@pytest.mark.parametrize("chunk", [None, 3])
def test_it_is_the_loop_of_the_paper_even_while_m_changes(chunk: int | None, error: Errors) -> None:
    inner, m = ridge(6)
    ms = [m, {name: leaf + 0.05 for name, leaf in m.items()}, {name: leaf - 0.02 for name, leaf in m.items()}]
    engine = Evolution(sigma=0.05, pairs=5, window=2, chunk=chunk)
    particles, middle = None, inner.start(m)
    for number, (now, truth) in enumerate(zip(ms, by_hand(engine, inner, ms, 2), strict=True)):
        result, particles = engine.advance(inner, now, particles)
        middle = roll(inner, middle, now, 2 * number, 2 * number + 2)
        assert error(result.grads, truth) < 1e-11
        assert torch.allclose(result.loss, inner.outer(middle, now)[0], rtol=1e-13)
        assert particles.t == 2 * number + 2 and particles.carry.theta["w"].shape == (5, 2, 3)
    with pytest.raises(UsageError, match="all 6 steps have been taken"):
        engine.advance(inner, m, particles)


@pytest.mark.parametrize(("steps", "window"), [(6, 2), (5, 2), (4, 10), (3, None)])
def test_the_whole_run_is_the_mean_of_its_windows(steps: int, window: int | None, error: Errors) -> None:
    inner, m = ridge(steps)
    engine = Evolution(sigma=0.05, pairs=4, window=window)
    whole, particles, parts = engine(inner, m), None, []
    while particles is None or particles.t < steps:
        part, particles = engine.advance(inner, m, particles)
        parts.append(part)
    assert len(parts) == math.ceil(steps / (window or steps))
    assert error(whole.grads, {name: sum(p.grads[name] for p in parts) / len(parts) for name in m}) < 1e-11  # type: ignore[misc]
    assert torch.allclose(whole.loss, torch.stack([part.loss for part in parts]).mean(), rtol=1e-13)
    assert torch.allclose(whole.loss, window_losses(inner, window or steps)(m), rtol=1e-13)
    assert torch.allclose(whole.aux["theta"], roll(inner, inner.start(m), m).theta["w"], rtol=1e-13)


@pytest.mark.parametrize("window", [None, 2])
def test_chunks_and_vectorising_change_nothing(window: int | None, error: Errors) -> None:
    inner, m = ridge(4)
    engine = Evolution(sigma=0.05, pairs=7, window=window)
    truth = engine(inner, m)
    for chunk in (1, 3, 7, 20):
        found = replace(engine, chunk=chunk)(inner, m)
        assert error(found.grads, truth.grads) < 1e-12
        assert torch.allclose(found.info["standard_error"], truth.info["standard_error"], rtol=1e-10)

    def one(key: Tensor, m: Tree) -> Tree:
        return engine(inner, m, key).grads

    keys = torch.tensor([4, 9])
    whole = func.vmap(one, in_dims=(0, None))(keys, m)
    for index in range(2):
        assert error({name: leaf[index] for name, leaf in whole.items()}, one(keys[index], m)) < 1e-12


# ------------------------------------------------------------------------------------------------------------ the noise


def test_the_noise_is_fresh_when_m_has_changed_and_only_then(error: Errors) -> None:
    inner, m = ridge(2)
    engine = Evolution(pairs=4)
    found = engine(inner, m).grads
    assert error(engine(inner, m).grads, found) == 0
    tiny = m | {"lr": m["lr"] + 1e-15}
    assert error(engine(inner, tiny).grads, found) > 1e-2
    assert error(replace(engine, seed=1)(inner, m).grads, found) > 1e-2
    keyed = engine(inner, m, torch.tensor(3)).grads
    assert error(engine(inner, m, torch.tensor(4)).grads, keyed) > 1e-2
    assert error(replace(engine, seed=1)(inner, m, torch.tensor(3)).grads, keyed) > 1e-2
    assert error(engine(inner, m, torch.tensor(3)).grads, keyed) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sigma": 0.0}, "sigma must be a number above 0, not 0.0"),
        ({"pairs": 1}, "pairs must be at least 2 .a standard error needs two estimates., not 1"),
        ({"window": 0}, "window must be at least 1, not 0"),
        ({"chunk": 0}, "chunk must be at least 1, not 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Evolution(**options)  # type: ignore[arg-type]
