"""Implicit differentiation: closed forms on quadratics, the unrolled derivative as T grows, and what it cannot see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, func, nn

from rbml import Batch, BlindError, Episodes, Learner, Phase, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import GMRES, ConjugateGradient, Implicit, Neumann, NormalEquations, Nystrom, Unrolled
from rbml.hypergrad.solve import Solver
from rbml.inner import Carry, Inner
from rbml.strategy import Hyper, Strategy, chain, l2, momentum, proximal, sgd, weight_decay
from rbml.tree import Tree, norm, under

Errors = Callable[[Tree, Tree], float]
N, SHOTS = 5, 20


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Ridge:
    """Ridge regression with a strength a weight and one on all, by descent; judged on other examples.

    theta* = (X'X/n + diag(each + all))^-1 X'y/n, so dL/d(each) = -theta* (X'X/n + diag)^-1 dL/dtheta*.
    """

    def __init__(self, steps: int = 180, lr: float = 0.5, heavy: float = 0.0) -> None:
        self.x, self.y = normal(SHOTS, N, seed=1), normal(SHOTS, seed=2)
        self.qx, self.qy = normal(9, N, seed=3), normal(9, seed=4)
        self.m = {"each": torch.linspace(0.1, 0.6, N).double(), "all": torch.tensor(0.2).double()}
        self.lr, self.heavy = lr, heavy
        self.inner = Inner(self.start, self.objective, self.update, self.outer, steps)

    def start(self, m: Tree) -> Carry:
        return Carry({"w": torch.ones(N).double()}, {"v": torch.zeros(N).double()})

    def objective(self, theta: Tree, m: Tree, t: int) -> Tensor:
        w = theta["w"]
        return 0.5 * ((self.x @ w - self.y) ** 2).mean() + 0.5 * ((m["each"] + m["all"]) * w**2).sum()

    def update(self, grads: Tree, carry: Carry, m: Tree, t: int) -> Carry:
        v = self.heavy * carry.state["v"] + grads["w"]
        return Carry({"w": carry.theta["w"] - self.lr * v}, {"v": v})

    def outer(self, carry: Carry, m: Tree) -> tuple[Tensor, Tree]:
        return 0.5 * ((self.qx @ carry.theta["w"] - self.qy) ** 2).mean() + 0.01 * m["all"], {"theta": carry.theta["w"]}

    def truth(self, damping: float = 0.0) -> Tree:
        hessian = self.x.T @ self.x / SHOTS + torch.diag(self.m["each"] + self.m["all"])
        best = torch.linalg.solve(hessian, self.x.T @ self.y / SHOTS)
        left = self.qx.T @ (self.qx @ best - self.qy) / 9
        each = -best * torch.linalg.solve(hessian + damping * torch.eye(N).double(), left)
        return {"each": each, "all": each.sum() + 0.01}


EXACTLY: list[Solver] = [
    ConjugateGradient(2 * N),
    NormalEquations(4 * N),
    GMRES(N),
    Neumann(180, rate=0.5),
]


@pytest.mark.parametrize("solver", EXACTLY, ids=repr)
@pytest.mark.parametrize("hvp", ["forward", "reverse"])
def test_ridge_regression_has_a_closed_form(solver: Solver, hvp: str, error: Errors) -> None:
    ridge = Ridge()
    result = Implicit(solver, hvp=hvp)(ridge.inner, ridge.m)  # type: ignore[arg-type]
    assert error(result.grads, ridge.truth()) < 1e-11
    assert float(result.info["residual"]) < 1e-12 and float(result.info["gap"]) < 1e-12
    assert float(result.info["ignored"]) == 0 < int(result.info["iterations"])


@pytest.mark.parametrize("solver", [NormalEquations(8 * N), GMRES(2 * N), Neumann(180, rate=1.0)], ids=repr)
@pytest.mark.parametrize("heavy", [0.0, 0.5])
def test_the_fixed_point_of_the_step_is_the_same_with_and_without_momentum(
    solver: Solver, heavy: float, error: Errors
) -> None:
    ridge = Ridge(heavy=heavy)
    result = Implicit(solver, at="step")(ridge.inner, ridge.m)
    assert error(result.grads, ridge.truth()) < 1e-10
    assert float(result.info["residual"]) < 1e-10 and float(result.info["gap"]) < 1e-12


def test_nystrom_errs_by_its_damping(error: Errors) -> None:
    ridge = Ridge()
    result = Implicit(Nystrom(N, rho=0.3))(ridge.inner, ridge.m)
    assert error(result.grads, ridge.truth(damping=0.3)) < 1e-11
    assert float(result.info["residual"]) > 0.05, "measured with the undamped matrix"
    near = Implicit(Nystrom(N, rho=1e-4))(ridge.inner, ridge.m)
    assert error(near.grads, ridge.truth()) < 1e-3 and float(near.info["residual"]) < 1e-3


@pytest.mark.parametrize("at", ["objective", "step"])
def test_damping_is_on_the_diagonal(at: str, error: Errors) -> None:
    ridge = Ridge()
    damping = 0.25 if at == "objective" else 0.25 * ridge.lr  # a step is I - lr H
    result = Implicit(GMRES(2 * N), at=at, damping=damping)(ridge.inner, ridge.m)  # type: ignore[arg-type]
    if at == "objective":
        assert error(result.grads, ridge.truth(damping=0.25)) < 1e-11
    assert error(result.grads, ridge.truth()) > 1e-2 and float(result.info["residual"]) < 1e-11


def test_imaml_is_the_proximal_closed_form() -> None:
    """theta* minimises f + strength/2 |theta - theta0|^2: dL/dtheta0 = (I + H/strength)^-1 dL/dtheta*."""
    factor, c, q = normal(N, N, seed=5), normal(N, seed=6), normal(N, seed=7)
    hessian = factor @ factor.T / N
    strength = 0.7

    def objective(theta: Tree, m: Tree, t: int) -> Tensor:
        w, pull = theta["w"], theta["w"] - m["start"]
        return 0.5 * w @ hessian @ w - c @ w + 0.5 * strength * pull @ pull

    inner = Inner(
        lambda m: Carry({"w": m["start"]}, {}),
        objective,
        lambda grads, carry, m, t: Carry({"w": carry.theta["w"] - 0.25 * grads["w"]}, {}),
        lambda carry, m: (0.5 * ((carry.theta["w"] - q) ** 2).sum(), {"theta": carry.theta["w"]}),
        300,
        {"start": frozenset({"start", "objective"})},
    )
    m = {"start": normal(N, seed=8)}
    result = Implicit()(inner, m)
    eye = torch.eye(N).double()
    best = torch.linalg.solve(hessian + strength * eye, c + strength * m["start"])
    truth = torch.linalg.solve(eye + hessian / strength, best - q)
    assert float((result.grads["start"] - truth).norm() / truth.norm()) < 1e-11


# --------------------------------------------------------------------------------------------------- against unrolled


def learner_for(strategy: Strategy, steps: int, roughened: Callable[[nn.Module], nn.Module]) -> Learner:
    return assemble(roughened(models.MLP(4, 3, (5,), nn.Tanh)), strategy, steps)


def distances(
    engine: Implicit, strategy: Strategy, counts: tuple[int, ...], pictures: Callable[..., Episodes],
    roughened: Callable[[nn.Module], nn.Module], fixed: str = "",
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Return the relative distance from the unrolled derivative and the gap, for every T."""
    apart, gaps = [], []
    for steps in counts:
        learner = learner_for(strategy, steps, roughened)
        for name, parameter in learner.named_parameters():
            parameter.requires_grad_(not (fixed and name.startswith(fixed)))
        episodes = pictures(tasks=2, shape=(4,))
        learner.hypergradient = engine
        found = learner.meta_gradient(episodes)
        learner.hypergradient = Unrolled()
        truth = learner.meta_gradient(episodes).grads
        apart.append(float(norm({name: found.grads[name] - leaf for name, leaf in truth.items()}) / norm(truth)))
        gaps.append(float(found.info["gap"].max()))
    return apart, gaps


@pytest.mark.parametrize(
    ("engine", "rules"),
    [
        (Implicit(ConjugateGradient(30)), [momentum(0.5), sgd(0.3)]),
        (Implicit(GMRES(30), at="step"), [momentum(0.5), sgd(0.3)]),
    ],
    ids=["objective", "step"],
)
def test_it_goes_to_the_unrolled_derivative_as_the_steps_grow(
    engine: Implicit, rules: list[object], pictures: Callable[..., Episodes],
    roughened: Callable[[nn.Module], nn.Module],
) -> None:  # fmt: skip
    terms = [l2(Hyper(0.4, per="element")), proximal(Hyper(0.5, per="tensor"))]
    apart, gaps = distances(engine, chain(*terms, *rules), (3, 12, 60), pictures, roughened)  # type: ignore[arg-type]
    assert apart[0] > 0.1 > apart[1] > apart[2] and apart[2] < 1e-7, apart
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-7


def test_weight_decay_apart_moves_the_fixed_point_of_the_step_alone(
    pictures: Callable[..., Episodes], roughened: Callable[[nn.Module], nn.Module]
) -> None:
    rules = chain(proximal(Hyper(0.5)), weight_decay(Hyper(0.4, per="tensor")), momentum(0.5), sgd(0.3))
    engine = Implicit(GMRES(30), at="step", moves="phi.weight_decay.*")
    apart, gaps = distances(engine, rules, (3, 60), pictures, roughened)
    assert apart[0] > 1e-2 and apart[1] < 1e-8 and gaps[1] < 1e-8
    fixed = "phi.weight_decay"
    apart, gaps = distances(Implicit(ConjugateGradient(30)), rules, (60,), pictures, roughened, fixed)
    assert apart[0] > 1e-3 and gaps[0] > 1e-2, "the gradient of the objective is not zero there, and the gap says so"


# -------------------------------------------------------------------------------------------------------- warm starts


def test_a_warm_start_goes_on_where_the_last_solution_ended(error: Errors) -> None:
    ridge = Ridge()
    engine = Implicit(ConjugateGradient(2))
    assert not under(engine(ridge.inner, ridge.m).info, "solution.")
    result = engine(ridge.inner, ridge.m, warm={})
    residuals = [float(result.info["residual"])]
    for _ in range(3):
        result = engine(ridge.inner, ridge.m, warm=under(result.info, "solution."))
        residuals.append(float(result.info["residual"]))
    assert residuals[0] > 1e-2 and residuals[-1] < 1e-2 * residuals[0], residuals
    moved = {name: leaf + 1e-3 for name, leaf in ridge.m.items()}
    warm = engine(ridge.inner, moved, warm=under(result.info, "solution."))
    cold = engine(ridge.inner, moved)
    assert float(warm.info["residual"]) < 0.1 * float(cold.info["residual"]), "it pays when m has moved a little"
    assert set(under(warm.info, "solution.")) == {"w"}
    step = Implicit(GMRES(3), at="step")
    first = step(ridge.inner, ridge.m, warm={})
    second = step(ridge.inner, ridge.m, warm=under(first.info, "solution."))
    assert float(second.info["residual"]) < 0.5 * float(first.info["residual"])
    assert error(under(first.info, "solution.theta."), {"w": torch.zeros(N).double()}) > 0


def test_a_learner_begins_each_task_where_its_last_solution_ended(pictures: Callable[..., Episodes]) -> None:
    rules = chain(proximal(0.5), sgd(0.3))
    learner = assemble(models.MLP(4, 3, (5,), nn.Tanh).double(), rules, 30, chunk=2)
    learner.hypergradient = Implicit(ConjugateGradient(2))
    episodes = pictures(tasks=3, shape=(4,))
    cold = learner.meta_gradient(episodes)
    result = learner.meta_gradient(episodes, warm={})
    assert all(torch.equal(grad, result.grads[name]) for name, grad in cold.grads.items())
    for _ in range(3):
        before, result = result, learner.backward(episodes, warm=under(result.info, "solution."))
        assert bool((result.info["residual"] < 0.7 * before.info["residual"]).all()), "each of the three tasks"
    learner.hypergradient = Implicit(ConjugateGradient(40))
    truth = learner.meta_gradient(episodes).grads
    near, far = (norm({k: one.grads[k] - truth[k] for k in truth}) for one in (result, cold))
    assert near < 0.3 * far
    learner.hypergradient = Unrolled()
    with pytest.raises(UsageError, match="warm= works only with the engine Implicit"):
        learner.meta_gradient(episodes, warm={})


# ------------------------------------------------------------------------------------------------------ what it cannot


def blind(engine: Implicit, strategy: Strategy, pictures: Callable[..., Episodes], **options: object) -> str:
    learner = assemble(models.MLP(4, 3, (5,), nn.Tanh).double(), strategy, 2, hypergradient=engine, **options)  # type: ignore[arg-type]
    with pytest.raises(BlindError) as caught:
        learner.meta_gradient(pictures(shape=(4,)))
    return str(caught.value)


def test_it_names_what_it_is_blind_to_and_the_way_out(pictures: Callable[..., Episodes]) -> None:
    text = blind(Implicit(), chain(sgd(Hyper(0.1))), pictures)
    assert "phi.sgd.lr" in text and "model.head.weight" in text and "proximal" in text and "Adjoint" in text
    text = blind(Implicit(), chain(proximal(0.1), momentum(Hyper(0.5)), sgd(Hyper(0.1))), pictures)
    assert "phi.sgd.lr" in text and "phi.momentum" in text and "model." not in text
    text = blind(Implicit(), chain(sgd(0.1)), pictures, adapt="head.*")
    assert "model.head.weight" in text and "model.body" not in text, "what is not adapted enters by the objective"
    rules = chain(proximal(0.1), weight_decay(Hyper(0.1)), sgd(Hyper(0.1)))
    assert "phi.weight_decay" in blind(Implicit(GMRES(), at="step"), rules, pictures)
    text = blind(Implicit(GMRES(), at="step", moves="phi.weight_decay.*"), rules, pictures)
    assert "phi.weight_decay" not in text and "phi.sgd.lr" in text


def test_on_an_unconverged_run_neumann_blows_up_and_says_so() -> None:
    """A step before descent has settled, on an objective that bends down there."""
    inner = Inner(
        lambda m: Carry({"w": normal(N, seed=1) + 1.5}, {}),
        lambda theta, m, t: (m["depth"] * torch.cos(theta["w"])).sum(),
        lambda grads, carry, m, t: Carry({"w": carry.theta["w"] - 0.01 * grads["w"]}, {}),
        lambda carry, m: ((carry.theta["w"] ** 2).sum(), {}),
        1,
    )
    result = Implicit(Neumann(100, rate=0.3))(inner, {"depth": torch.tensor(1.0).double()})
    assert float(result.info["residual"]) > 1e3 and float(result.info["gap"]) > 0.1
    assert bool(torch.isfinite(result.grads["depth"]))


def test_an_outer_loss_that_sees_the_state_is_reported(pictures: Callable[..., Episodes]) -> None:
    strategy = chain(proximal(0.1), sgd(0.1))
    learner = assemble(models.MLP(4, 3, (5,), nn.Tanh).double(), strategy, 2, step_weights=[0.5, 0.5])
    learner.hypergradient = Implicit()
    assert learner.meta_gradient(pictures(shape=(4,))).info["ignored"].tolist() == [1.0, 1.0, 1.0]
    last_alone = learner.meta_gradient(pictures(shape=(4,)), phase=Phase(Implicit()))
    assert last_alone.info["ignored"].tolist() == [0.0, 0.0, 0.0]


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no condition named 'steps': did you mean 'step'"):
        Implicit(at="steps")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="hvp mode"):
        Implicit(hvp="sideways")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="damping must be at least 0, not -1"):
        Implicit(damping=-1)
    with pytest.raises(UsageError, match=r'it needs at="step"'):
        Implicit(moves="phi.*")
    with pytest.raises(UsageError, match=r'applies only to at="objective"'):
        Implicit(at="step", hvp="reverse")
    ridge = Ridge(steps=0)
    with pytest.raises(UsageError, match="this one has no steps"):
        Implicit()(ridge.inner, ridge.m)


def test_it_may_be_vectorised_over_tasks_that_need_different_times(error: Errors) -> None:
    ridge = Ridge()

    def one(each: Tensor) -> tuple[Tree, Tree]:
        result = Implicit(ConjugateGradient(3 * N))(ridge.inner, ridge.m | {"each": each})
        return result.grads, result.info

    strengths = torch.stack([torch.full((N,), 2.0), torch.linspace(0.1, 0.6, N)]).double()
    grads, info = func.vmap(one)(strengths)
    for index in range(2):
        alone, _ = one(strengths[index])
        assert error({name: leaf[index] for name, leaf in grads.items()}, alone) < 1e-9
    assert norm(info) > 0 and int(info["iterations"][1]) >= N - 1


def test_batches_of_a_learner_have_a_residual_a_task(pictures: Callable[..., Episodes]) -> None:
    learner = assemble(models.MLP(4, 3, (5,), nn.Tanh).double(), chain(proximal(1.0), sgd(0.3)), 20)
    learner.hypergradient = Implicit(ConjugateGradient(10))
    episodes = pictures(shape=(4,))
    info = learner.meta_gradient(episodes).info
    assert set(info) == {"residual", "iterations", "gap", "ignored"} and all(len(leaf) == 3 for leaf in info.values())
    one = Batch(episodes.support.x[:1], episodes.support.y[:1]), Batch(episodes.query.x[:1], episodes.query.y[:1])
    alone = learner.meta_gradient(Episodes(*one)).info
    assert torch.allclose(alone["gap"][0], info["gap"][0])
