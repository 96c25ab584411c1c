"""What every hypergradient engine must pass. A new member of ``hypergrad.ALL`` takes a place in one of the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, func, nn

from rbml import Batch, Episode, Episodes, Learner, hypergrad, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, FirstOrder, Forward, Hypergradient, Unrolled, directional_difference
from rbml.inner import Inner, roll
from rbml.strategy import (
    Hyper,
    Scalar,
    Strategy,
    Term,
    TermInputs,
    adam,
    chain,
    cosine,
    l2,
    momentum,
    noise,
    prototype,
    sgd,
    weight_decay,
)
from rbml.strategy.base import Values
from rbml.tree import Tree

EXACT: dict[str, list[Hypergradient]] = {
    "unrolled": [Unrolled()],
    "adjoint": [Adjoint(), Adjoint(keep=0), Adjoint(hvp="reverse", keep=0), Adjoint(store="segments", keep=2)],
    "forward": [Forward(chunk=2000, limit=4000)],
}
UNDOING: list[Hypergradient] = [Adjoint(store="reverse")]
"""Exact engines for the problems whose steps can be undone; tests/hypergrad/test_reverse.py has ``exact=True``."""
APPROXIMATE: dict[str, list[Hypergradient]] = {
    "first_order": [FirstOrder()],
    "adjoint": [
        Adjoint(window=1),
        Adjoint(window=1, keep=0),
        Adjoint(store="segments", window=2),
        Adjoint(hvp="difference"),
    ],
    "unrolled": [Unrolled(window=1)],
}
ELSEWHERE = Path(__file__).parent / "test_approximate_engines.py"
"""The table of the other approximate engines is there."""
WITH_WINDOW: dict[str, Callable[[int], Hypergradient]] = {
    "unrolled": lambda window: Unrolled(window=window),
    "adjoint": lambda window: Adjoint(window=window),
    "adjoint, hvp": lambda window: Adjoint(window=window, hvp="reverse", keep=0),
    "adjoint, segments": lambda window: Adjoint(store="segments", window=window, keep=0),
    "adjoint, keep": lambda window: Adjoint(window=window, keep=3),
    "adjoint, reverse": lambda window: Adjoint(store="reverse", window=window),
}
PERS = ("all", "layer", "tensor", "element")


class Problem(NamedTuple):
    """A network, a strategy with everything in it, T, whether its steps can be undone, and options of the learner."""

    net: str
    strategy: Callable[[], Strategy]
    steps: int
    undone: bool = False
    options: Mapping[str, Any] = {}


def full(per: str = "tensor", per_step: bool = True, nesterov: bool = False, terms: bool = True) -> Strategy:
    """Return l2, weight decay, momentum and SGD, every number learned."""
    parts = [
        l2(Hyper((0.1, 0.3), per=per, per_step=per_step, bounds=(0, None))),
        weight_decay(Hyper((0.1, 0.3), per=per, per_step=per_step)),
        momentum(Hyper((0.4, 0.7), per=per, per_step=per_step, bounds=(0, 1)), nesterov=nesterov),
        sgd(Hyper((0.05, 0.2), per=per, per_step=per_step, bounds=(None, 1.0))),
    ]
    return chain(*(parts if terms else parts[1:]))


def mixed() -> Strategy:
    """Return a chain in which every number has another granularity."""
    return chain(
        l2(Hyper(0.2, per="layer", bounds=(0, None))),
        weight_decay(Hyper(0.1, per_step=True)),
        momentum(Hyper(0.6, bounds=(0, 1)), nesterov=True),
        sgd(Hyper((0.05, 0.2), per="tensor", per_step=True, bounds=(0, None))),
    )


def gentle() -> Strategy:
    """Return small numbers: with batch norm, 20 large steps are chaotic, and no difference quotient is right there."""
    parts = [l2(Hyper(0.01)), weight_decay(Hyper(0.01)), momentum(Hyper(0.5), nesterov=True)]
    return chain(*parts, sgd(Hyper(0.02, per_step=True)))


def long(decay: float | Hyper = 0.9) -> Strategy:
    """Return a chain that can be undone, gentle enough for many steps."""
    return chain(weight_decay(Hyper(0.02)), momentum(decay), sgd(Hyper(0.02, per_step=True)), cosine(Hyper(0.1)))


def adaptive() -> Strategy:
    """Return Adam with everything learned, noise and all."""
    numbers = (Hyper(0.8, per="layer", bounds=(0, 1)), Hyper(0.9, bounds=(0, 1)), Hyper(0.3, bounds=(0, None)))
    return chain(weight_decay(Hyper(0.1, per="tensor")), adam(*numbers), sgd(Hyper(0.05, per_step=True)))


def anchored() -> Strategy:
    """Return a term that sees all a term may see: theta0 enters by the inner objective too."""

    def value(values: Values, scene: TermInputs) -> Tensor:
        theta, theta0, x, y, prediction = scene[:5]
        strengths = values["strength"]
        pull = torch.stack([(strengths[name] * (leaf - theta0[name]) ** 2).sum() for name, leaf in theta.items()]).sum()
        return pull + 0.1 * (prediction.logsumexp(1) * x.mean() * (y + 1)).mean()

    return chain(Term("anchor", {"strength": Hyper(0.5, per="tensor")}, value), sgd(Hyper(0.3, per_step=True)))


PROBLEMS = {
    **{f"mlp, {per}, {per_step}": Problem("mlp", lambda p=per, s=per_step: full(p, s), 5, True)  # type: ignore[misc]
       for per, per_step in product(PERS, (False, True))},
    "mlp, plain": Problem("mlp", lambda: chain(sgd(Hyper(0.3))), 1),
    "mlp, T=1": Problem("mlp", full, 1),
    "mlp, T=20": Problem("mlp", mixed, 20),
    "mlp, T=50": Problem("mlp", long, 50, True),
    "mlp, adam": Problem("mlp", adaptive, 7),
    "mlp, noise": Problem("mlp", lambda: chain(noise(Hyper(0.1)), momentum(Hyper(0.8)), sgd(Hyper(0.1))), 5, True),
    "mlp, every step counts": Problem("mlp", full, 4, True, {"step_weights": (0.1, 0.2, 0.3, 0.4)}),
    "mlp, prototypes": Problem("mlp", lambda: chain(prototype(Scalar(1.0)), full()), 3, True),
    "mlp, nesterov": Problem("mlp", lambda: full(nesterov=True), 5),
    "mlp, anchored": Problem("mlp", anchored, 3),
    "conv4, T=1": Problem("conv4", lambda: full("all"), 1),
    "conv4, stepwise": Problem("conv4", mixed, 2, False, {"stepwise": "*.norm.*", "step_weights": (0.3, 0.7)}),
    "conv4, adam": Problem("conv4", adaptive, 5),
    "conv4, T=5": Problem("conv4", mixed, 5),
    "conv4, element": Problem("conv4", lambda: full("element"), 2, True),
    "conv4, T=20": Problem("conv4", gentle, 20),
}  # fmt: skip

Make = Callable[[Problem], Learner]
Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]


@pytest.fixture
def make(roughened: Callable[[nn.Module], nn.Module]) -> Make:
    def build(problem: Problem) -> Learner:
        net: nn.Module = models.MLP(4, 3, (5,), nn.Tanh)
        if problem.net == "conv4":
            net = models.Conv4(3, filters=3, norm="batch", activation=nn.Tanh)
        return assemble(roughened(net), problem.strategy(), problem.steps, **problem.options)

    return build


@pytest.fixture
def task(make: Make, pictures: Pictures) -> Callable[[Problem], tuple[Inner, Tree]]:
    """Return the inner loop of one task and the meta-parameters."""

    def build(problem: Problem) -> tuple[Inner, Tree]:
        learner, episodes = make(problem), episodes_for(problem, pictures)
        support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
        weights = problem.options.get("step_weights")
        bound = learner.bind(
            Episode(support, query),
            step_weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
            key=torch.tensor(11),
        )
        learned = {name: leaf for name, leaf in learner.named_parameters() if leaf.requires_grad}
        return bound.inner(), {name: leaf.detach() for name, leaf in learned.items()}

    return build


def episodes_for(problem: Problem, pictures: Pictures) -> Episodes:
    return pictures(shape=(4,) if problem.net == "mlp" else (1, 12, 12))


def label(engine: Hypergradient) -> str:
    return repr(engine)


TABLES = (*EXACT.values(), UNDOING, *APPROXIMATE.values())
every = [pytest.param(one, id=label(one)) for row in TABLES for one in row]
exact = [pytest.param(one, id=label(one)) for row in EXACT.values() for one in row]
Task = Callable[[Problem], tuple[Inner, Tree]]


def exact_for(problem: Problem) -> list[list[Hypergradient]]:
    """Return the exact engines for a problem; Forward's many tangents through Conv4 would only take long."""
    few = problem.net == "mlp" or problem.steps == 5
    rows = [row for name, row in EXACT.items() if name != "forward" or few]
    return [*rows, UNDOING] if problem.undone else rows


def test_every_member_is_tested_here() -> None:
    for name in hypergrad.ALL:
        assert name in EXACT or name in APPROXIMATE or f'"{name}"' in ELSEWHERE.read_text(), name


@pytest.mark.parametrize("name", sorted(hypergrad.ALL))
def test_every_engine_says_what_it_costs_and_what_it_is_blind_to(name: str) -> None:
    text = str(hypergrad.ALL[name].__doc__)
    first, *rest = text.splitlines()
    assert first.strip() and rest, "one line, then the rest"
    for word in ("Memory", "Time", "blind", "arXiv"):
        assert word in text, f"{name} does not say: {word}"
    assert "Exact." in text or "Approximate" in text


# ---------------------------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize("name", PROBLEMS)
def test_exact_engines_agree(name: str, task: Task, error: Errors) -> None:
    inner, m = task(PROBLEMS[name])
    truth = Unrolled()(inner, m)
    for leaf, grad in truth.grads.items():
        # Only a number that no step has used (the momentum of a first step) may have no derivative.
        assert float(grad.norm()) > 1e-9 or (PROBLEMS[name].steps == 1 and "momentum" in leaf), leaf
    for engine in (engine for row in exact_for(PROBLEMS[name]) for engine in row):
        result = engine(inner, m)
        assert error(result.grads, truth.grads) < 1e-11, f"{engine}: the issue asks for 1e-10"
        assert torch.allclose(result.loss, truth.loss, rtol=1e-13)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if "adam" not in name and "50" not in name])
def test_exact_engines_agree_with_central_differences(name: str, task: Task) -> None:
    """Every leaf, along its own gradient and a random direction at once: the first for signal, the second to see all.

    Not with Adam, whose step has a kink where an element of the gradient is zero: tests/strategy/test_adaptive.py.

    The difference of fourth order with h = 1e-4 errs by rounding, about 2e-16 * loss / h = 2e-12, and by h**4 = 1e-16
    times the fifth derivative, up to 1e6 here. Hence 3e-11 beside a relative 1e-8; the gradients are 1e-5 to 1.
    """
    inner, m = task(PROBLEMS[name])
    found = [(row[0], row[0](inner, m).grads) for row in exact_for(PROBLEMS[name])]
    directions = {leaf: along(grad) for leaf, grad in found[0][1].items()}
    one_by_one = {
        leaf: torch.stack([way if other == leaf else torch.zeros_like(way) for other in m])
        for leaf, way in directions.items()
    }
    measured = func.vmap(lambda way: directional_difference(inner, m, way, step=1e-4))(one_by_one)
    for leaf, difference in zip(m, measured, strict=True):
        for engine, grads in found:
            derived = (grads[leaf] * directions[leaf]).sum()
            assert abs(difference - derived) <= 1e-8 * abs(derived) + 3e-11, (engine, leaf, derived, difference)


def along(grad: Tensor) -> Tensor:
    """Return a unit direction, half the gradient's own and half random."""
    noise = torch.randn_like(grad)
    noise = noise / noise.norm() * (1 if (noise * grad).sum() >= 0 else -1)
    direction = noise + grad / (grad.norm() + 1e-30)
    return direction / direction.norm()


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_windows_mean_the_same_to_every_engine(net: str, window: int, task: Task, error: Errors) -> None:
    inner, m = task(Problem(net, full, 5))
    truth = truncated(inner, m, window)
    whole = Unrolled()(inner, m)
    for name, engine in WITH_WINDOW.items():
        result = engine(window)(inner, m)
        assert error(result.grads, truth) < 1e-11, name
        assert torch.allclose(result.loss, whole.loss, rtol=1e-13), "truncation is of the derivative alone"
        assert error(result.grads, whole.grads) > 1e-3, f"{name}: a window of {window} of 5 steps must not be exact"


@pytest.mark.parametrize("name", sorted(WITH_WINDOW))
@pytest.mark.parametrize("window", [3, 4])
def test_a_window_that_holds_all_steps_is_exact(name: str, window: int, task: Task, error: Errors) -> None:
    inner, m = task(Problem("mlp", full, 3))
    assert error(WITH_WINDOW[name](window)(inner, m).grads, Unrolled()(inner, m).grads) < 1e-12


def truncated(inner: Inner, m: Tree, window: int) -> Tree:
    """Return the truncated hypergradient by plain autograd: the last steps on a graph, from theta0 as their start."""
    first = inner.steps - window
    early = roll(inner, inner.start(m), m, stop=first)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in m.items()}
    start = inner.start(leaves).theta
    theta = {name: leaf.detach() + start[name] - start[name].detach() for name, leaf in early.theta.items()}
    carry = early._replace(theta=theta)
    for t in range(first, inner.steps):
        names = list(carry.theta)
        grads = torch.autograd.grad(
            inner.objective(carry.theta, leaves, t), [carry.theta[n] for n in names], create_graph=True
        )
        carry = inner.update(dict(zip(names, grads, strict=True)), carry, leaves, t)
    loss, _ = inner.outer(carry, leaves)
    got = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, got, strict=True))


# -------------------------------------------------------------------------------------------------- every engine alike


@pytest.mark.parametrize("engine", every)
@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_the_result_has_the_form_that_the_protocol_says(net: str, engine: Hypergradient, task: Task) -> None:
    inner, m = task(Problem(net, lambda: full(terms=False), 3))
    before = {name: leaf.clone() for name, leaf in m.items()}
    result = engine(inner, m)
    loss, aux = inner.outer(roll(inner, inner.start(m), m), m)
    assert torch.allclose(result.loss, loss, rtol=1e-13) and result.loss.dim() == 0
    assert torch.allclose(result.aux["prediction"], aux["prediction"], rtol=1e-10)
    assert list(result.grads) == list(m)
    for name, grad in result.grads.items():
        assert grad.shape == m[name].shape and grad.dtype == m[name].dtype and not grad.requires_grad
        assert torch.isfinite(grad).all()
        assert torch.equal(before[name], m[name]), f"{name} was changed in place"


@pytest.mark.parametrize("engine", every)
def test_no_steps_leave_the_plain_gradient(engine: Hypergradient, task: Task) -> None:
    inner, m = task(Problem("conv4", lambda: full(terms=False), 0))
    result = engine(inner, m)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in m.items()}
    loss, _ = inner.outer(inner.start(leaves), leaves)
    plain = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    for name, truth in zip(leaves, plain, strict=True):
        assert torch.allclose(result.grads[name], truth, rtol=1e-12, atol=1e-16), name
        assert float(truth.norm()) == 0 if name.startswith("phi.") else float(truth.norm()) > 0


@pytest.mark.parametrize("engine", every)
def test_a_part_of_the_meta_parameters_gets_the_same_derivative(engine: Hypergradient, task: Task) -> None:
    inner, m = task(Problem("mlp", lambda: full(terms=False), 3))
    whole = engine(inner, m).grads
    for prefix in ("model.", "phi.", "phi.sgd", "model.head"):
        part = engine(inner, {name: leaf for name, leaf in m.items() if name.startswith(prefix)}).grads
        assert part and all(torch.allclose(grad, whole[name], rtol=1e-12, atol=0) for name, grad in part.items())


@pytest.mark.parametrize("engine", every)
@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_vectorised_over_tasks_it_equals_the_loop(
    net: str, engine: Hypergradient, make: Make, pictures: Pictures, error: Errors
) -> None:
    problem = Problem(net, lambda: full(terms=False), 3)
    learner, episodes = make(problem), episodes_for(problem, pictures)
    m = {name: leaf.detach() for name, leaf in learner.named_parameters()}

    def one(sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> tuple[Tensor, Tree]:
        result = engine(learner.inner(Episode(Batch(sx, sy), Batch(qx, qy))), m)
        return result.loss, result.grads

    tensors = (*episodes.support[:2], *episodes.query[:2])
    losses, grads = func.vmap(one)(*tensors)
    for index in range(episodes.tasks):
        loss, truth = one(*(tensor[index] for tensor in tensors))
        assert torch.allclose(losses[index], loss, rtol=1e-12)
        rounding = 1e-9 if "difference" in repr(engine) else 1e-11
        assert error({name: grad[index] for name, grad in grads.items()}, truth) < rounding


@pytest.mark.parametrize("engine", every)
def test_the_caller_may_be_under_no_grad(engine: Hypergradient, task: Task, error: Errors) -> None:
    inner, m = task(Problem("mlp", lambda: full(terms=False), 2))
    truth = engine(inner, m).grads
    with torch.no_grad():
        assert error(engine(inner, m).grads, truth) == 0.0


@pytest.mark.parametrize("engine", exact)
def test_a_parameter_that_the_model_does_not_use_has_a_zero_gradient(
    engine: Hypergradient, pictures: Pictures, error: Errors
) -> None:
    class Spare(models.MLP):
        def __init__(self) -> None:
            super().__init__(4, 3, (5,), nn.Tanh)
            self.spare = nn.Parameter(torch.ones(2))

    learner = assemble(Spare().double(), sgd(Hyper(0.1, per="tensor")), 2, hypergradient=engine)
    grads = learner.meta_gradient(pictures(shape=(4,))).grads
    assert set(grads) == {name for name, _ in learner.named_parameters()}
    assert float(grads["model.spare"].norm()) == 0 == float(grads["phi.sgd.lr/spare"])
    assert float(grads["model.head.weight"].norm()) > 0
