"""What every approximate engine must pass: everything that an exact one must, but for being exact.

An engine says that it is approximate: ``approximate = True``. It is run where it is blind to nothing, and must refuse
the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map

from rbml import Batch, BlindError, Episode, Episodes, Learner, Phase, hypergrad, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import (
    GMRES,
    Adjoint,
    ConjugateGradient,
    Evolution,
    Hypergradient,
    Implicit,
    NormalEquations,
    Nystrom,
    Reptile,
    Sama,
    Unrolled,
    ValueFunction,
    Windowed,
)
from rbml.learner.options import curriculum_of
from rbml.strategy import Hyper, Strategy, chain, l2, momentum, proximal, sgd
from rbml.tree import Tree

STEPS = 4


class Row(NamedTuple):
    """How an engine is held to the contract.

    Attributes:
        engines: the engine, and its options.
        strategy: one that it can see all of.
        refuses: a strategy, what is adapted, and what the engine must name; ``None`` for one that is blind to nothing.
        weights: how much the query loss after each step counts in the loss that it reports; ``None`` is the last only.
        whole: whether its estimate for one parameter does not depend on which others are asked for.
    """

    engines: list[Hypergradient]
    strategy: Callable[[], Strategy]
    refuses: tuple[Callable[[], Strategy], str, list[str]] | None
    weights: list[float] | None = None
    whole: bool = True


def pulled() -> Strategy:
    """Return a strategy whose learned numbers all enter by the objective, with a pull towards theta0."""
    terms = [l2(Hyper(0.2, per="element")), proximal(Hyper(0.5, per="tensor"))]
    return chain(*terms, momentum(0.5), sgd(0.3))


def free() -> Strategy:
    return chain(momentum(Hyper(0.5)), sgd(Hyper(0.3, per="tensor")))


def fixed() -> Strategy:
    return chain(l2(0.1), momentum(0.5), sgd(0.3))


def full() -> Strategy:
    return chain(l2(Hyper(0.1)), momentum(Hyper(0.5)), sgd(Hyper(0.3, per="tensor", per_step=True)))


UNSEEN = ["model.head.weight", "phi.sgd.lr", "phi.momentum.decay"]
APPROXIMATE: dict[str, list[Row]] = {
    "implicit": [
        Row([Implicit(ConjugateGradient(2)), Implicit(Nystrom(2, rho=0.1))], pulled, (free, "*", UNSEEN)),
        Row([Implicit(GMRES(2), at="step"), Implicit(NormalEquations(2), at="step")], pulled, (free, "*", UNSEEN)),
    ],
    "sama": [Row([Sama()], pulled, (free, "*", UNSEEN))],
    "value_function": [Row([ValueFunction(iterations=3)], pulled, (free, "*", UNSEEN))],
    "reptile": [
        Row([Reptile(), Reptile(scale=2.0)], fixed, (free, "*", UNSEEN[1:])),
        Row([], fixed, (fixed, "head.*", ["model.body.1.weight"])),
    ],
    "evolution": [
        Row([Evolution(pairs=3), Evolution(pairs=3, chunk=2)], full, None, whole=False),
        Row([Evolution(pairs=3, window=2)], full, None, weights=[0, 0.5, 0, 0.5], whole=False),
    ],
    "windowed": [Row([Windowed(2), Windowed(2, Unrolled())], full, None, weights=[0, 0.5, 0, 0.5])],
}

ROWS = [row for rows in APPROXIMATE.values() for row in rows]
MEMBERS = [pytest.param(engine, row, id=repr(engine)) for row in ROWS for engine in row.engines]
NETS = [pytest.param("mlp", engine, row, id=f"mlp, {engine}") for row in ROWS for engine in row.engines]
NETS += [pytest.param("conv4", row.engines[0], row, id=f"conv4, {row.engines[0]}") for row in ROWS if row.engines]
TRACED: list[Hypergradient] = [  # small ones: tracing takes two milliseconds an operator
    Implicit(GMRES(1)),
    Implicit(NormalEquations(1), at="step"),
    Sama(),
    ValueFunction(iterations=2),
    Reptile(),
    Evolution(pairs=2, window=1),
]
ELSEWHERE = {"first_order"}
"""What sees nearly all that an exact engine sees is in tests/contracts/engines.py."""
Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]
Make = Callable[..., Learner]


@pytest.fixture
def make(roughened: Callable[[nn.Module], nn.Module]) -> Make:
    def build(engine: Hypergradient, strategy: Strategy, net: str = "mlp", **options: Any) -> Learner:
        module: nn.Module = models.MLP(4, 3, (5,), nn.Tanh)
        if net == "conv4":
            module = models.Conv4(3, filters=3, norm="batch", activation=nn.Tanh)
        return assemble(roughened(module), strategy, STEPS, hypergradient=engine, **options)

    return build


def test_every_engine_that_says_it_is_approximate_is_tested_here() -> None:
    said = {name for name, engine in hypergrad.ALL.items() if getattr(engine, "approximate", False)}
    assert set(APPROXIMATE) <= said and said - set(APPROXIMATE) <= ELSEWHERE


@pytest.mark.parametrize("name", APPROXIMATE)
def test_it_says_what_it_costs_what_it_is_and_what_it_is_blind_to(name: str) -> None:
    text = str(inspect.getdoc(hypergrad.ALL[name]))
    for word in ("Approximate", "Memory: ", "Time: ", "It is blind to", "arXiv", ".. math::", "Args:", "Raises:"):
        assert word in text, f"{name} does not say: {word}"
    for option in inspect.signature(hypergrad.ALL[name]).parameters:
        assert f"\n    {option}: " in text, f"{name} does not say what {option} is"


@pytest.mark.parametrize(("engine", "row"), MEMBERS)
def test_it_is_a_value(engine: Hypergradient, row: Row) -> None:
    """A learner keeps what it has compiled by the engine."""
    assert hash(engine) == hash(engine) and eval(repr(engine), vars(hypergrad)) == engine


@pytest.mark.parametrize(("net", "engine", "row"), NETS)
def test_the_result_has_the_form_that_the_protocol_says(
    net: str, engine: Hypergradient, row: Row, make: Make, pictures: Pictures
) -> None:
    learner, episodes = make(engine, row.strategy(), net), pictures(shape=(4,) if net == "mlp" else (1, 12, 12))
    before = {name: leaf.detach().clone() for name, leaf in learner.named_parameters()}
    result = learner.meta_gradient(episodes)
    learner.curriculum = curriculum_of(Phase(Adjoint(), row.weights))
    exact = learner.meta_gradient(episodes)
    assert torch.allclose(result.loss, exact.loss, rtol=1e-12), "the loss is no approximation"
    assert torch.allclose(result.aux["prediction"], exact.aux["prediction"], rtol=1e-10)
    assert list(result.grads) == list(before)
    for name, grad in result.grads.items():
        assert grad.shape == before[name].shape and grad.dtype == before[name].dtype and not grad.requires_grad
        assert torch.isfinite(grad).all() and float(grad.norm()) > 0, name
        assert torch.equal(before[name], dict(learner.named_parameters())[name]), f"{name} was changed in place"
    assert all(len(leaf) == episodes.tasks and bool(torch.isfinite(leaf).all()) for leaf in result.info.values())


@pytest.mark.parametrize(("net", "engine", "row"), NETS)
def test_chunks_change_nothing_and_vectorising_is_the_loop(
    net: str, engine: Hypergradient, row: Row, make: Make, pictures: Pictures, error: Errors
) -> None:
    learner, episodes = make(engine, row.strategy(), net), pictures(shape=(4,) if net == "mlp" else (1, 12, 12))
    whole = learner.meta_gradient(episodes)
    learner.run(replace(learner.execution, chunk=2))
    parts = learner.meta_gradient(episodes)
    assert error(parts.grads, whole.grads) < 1e-9
    assert torch.allclose(parts.loss, whole.loss, rtol=1e-12)
    assert all(torch.allclose(leaf, whole.info[name], rtol=1e-6, atol=1e-12) for name, leaf in parts.info.items())
    m = {name: leaf.detach() for name, leaf in learner.named_parameters()}
    total = {name: torch.zeros_like(leaf) for name, leaf in m.items()}
    for sx, sy, qx, qy in zip(*episodes.support[:2], *episodes.query[:2], strict=True):
        grads = engine(learner.inner(Episode(Batch(sx, sy), Batch(qx, qy))), m).grads
        total = {name: leaf + grads[name] / episodes.tasks for name, leaf in total.items()}
    assert error(total, whole.grads) < 1e-9


@pytest.mark.parametrize("engine", TRACED, ids=repr)
def test_traced_it_is_the_same(engine: Hypergradient, pictures: Pictures, error: Errors) -> None:
    """The graph of other tensors, replayed for these: nothing was decided by a value, and all noise is drawn anew."""
    learner = assemble(models.MLP(4, 3, (), nn.Tanh).double(), chain(proximal(0.5), sgd(0.3)), 2, hypergradient=engine)
    episodes = pictures(tasks=2, shape=(4,))
    truth = learner.meta_gradient(episodes)

    def traced(function: Callable[..., Any], m: Tree, *arguments: Any, variant: Any) -> Any:
        others = (
            {name: leaf + 0.01 for name, leaf in m.items()},
            *tree_map(lambda leaf: leaf.flip(0).clone(), arguments),
        )
        return make_fx(function)(*others)(m, *arguments)

    learner.compiled = traced  # type: ignore[assignment]
    found = learner.meta_gradient(episodes)
    assert error(found.grads, truth.grads) < 1e-9
    assert torch.allclose(found.loss, truth.loss, rtol=1e-12)


@pytest.mark.parametrize(("engine", "row"), MEMBERS)
def test_the_caller_may_be_under_no_grad(
    engine: Hypergradient, row: Row, make: Make, pictures: Pictures, error: Errors
) -> None:
    learner, episodes = make(engine, row.strategy()), pictures(shape=(4,))
    truth = learner.meta_gradient(episodes).grads
    with torch.no_grad():
        assert error(learner.meta_gradient(episodes).grads, truth) == 0.0


@pytest.mark.parametrize(("engine", "row"), [member for member in MEMBERS if member.values[1].whole])  # type: ignore[attr-defined]
def test_a_part_of_the_meta_parameters_gets_the_same_derivative(
    engine: Hypergradient, row: Row, make: Make, pictures: Pictures
) -> None:
    learner, episodes = make(engine, row.strategy()), pictures(shape=(4,))
    inner = learner.inner(Episode(*(Batch(batch.x[0], batch.y[0]) for batch in episodes)))
    m = {name: leaf.detach() for name, leaf in learner.named_parameters()}
    whole = engine(inner, m).grads
    for prefix in ("model.", "model.head", "model.body"):
        part = engine(inner, {name: leaf for name, leaf in m.items() if name.startswith(prefix)}).grads
        assert part and all(torch.allclose(grad, whole[name], rtol=1e-9) for name, grad in part.items())


@pytest.mark.parametrize("name", APPROXIMATE)
def test_it_refuses_what_it_is_blind_to(name: str, make: Make, pictures: Pictures) -> None:
    for row in APPROXIMATE[name]:
        for engine in row.engines or [hypergrad.ALL[name]()]:
            if row.refuses is None:
                continue
            strategy, adapt, named = row.refuses
            with pytest.raises(BlindError) as caught:
                make(engine, strategy(), adapt=adapt).meta_gradient(pictures(shape=(4,)))
            text = str(caught.value)
            assert type(engine).__name__ in text and all(one in text for one in named) and "Use Adjoint" in text, text
