"""The solvers against ``torch.linalg.solve``, on matrices whose condition is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, func
from torch.fx.experimental.proxy_tensor import make_fx

from rbml.errors import UsageError
from rbml.hypergrad.solve import (
    GMRES,
    ConjugateGradient,
    Neumann,
    NormalEquations,
    Nystrom,
    Solution,
    Solver,
    flatten,
    solve,
    unflatten,
)
from rbml.tree import Tree

N = 12
EYE = torch.eye(N, dtype=torch.float64)
LIKE = {"body.weight": torch.zeros(3, 3).double(), "scale": torch.zeros(()).double(), "head": torch.zeros(2).double()}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def positive(seed: int = 0) -> Tensor:
    """Return a symmetric matrix with eigenvalues from 0.5 to 5."""
    turn = torch.linalg.qr(normal(N, N, seed=seed))[0]
    return turn @ torch.diag(torch.linspace(0.5, 5, N).double()) @ turn.T


def indefinite() -> Tensor:
    turn = torch.linalg.qr(normal(N, N))[0]
    return turn @ torch.diag(torch.linspace(-2.2, 3, N).double()) @ turn.T


def crooked() -> Tensor:
    """Return a matrix that is not symmetric, with singular values from 0.5 to 3."""
    left, right = torch.linalg.qr(normal(N, N))[0], torch.linalg.qr(normal(N, N, seed=1))[0]
    return left @ torch.diag(torch.linspace(0.5, 3, N).double()) @ right


def solved(solver: Solver, a: Tensor, b: Tensor, guess: Tensor | None = None) -> Solution:
    def product(matrix: Tensor) -> Callable[[Tree], Tree]:
        return lambda tree: unflatten(matrix @ flatten(tree), LIKE)

    start = None if guess is None else unflatten(guess, LIKE)
    return solve(solver, product(a), product(a.T), unflatten(b, LIKE), start)


def distance(solver: Solver, a: Tensor, b: Tensor, truth: Tensor | None = None) -> float:
    truth = torch.linalg.solve(a, b) if truth is None else truth
    solution = solved(solver, a, b)
    left = (b - a @ flatten(solution.x)).norm() / b.norm()
    assert torch.allclose(solution.residual, left, rtol=1e-6, atol=1e-15), "the residual is the true one"
    return float((flatten(solution.x) - truth).norm() / truth.norm())


@pytest.mark.parametrize(
    ("solver", "matrix", "within"),
    [
        (ConjugateGradient(2 * N), positive, 1e-12),
        (NormalEquations(3 * N), positive, 1e-11),
        (NormalEquations(3 * N), indefinite, 1e-10),
        (NormalEquations(3 * N), crooked, 1e-11),
        (GMRES(N), positive, 1e-12),
        (GMRES(N), indefinite, 1e-12),
        (GMRES(N), crooked, 1e-12),
        (GMRES(N + 5), crooked, 1e-12),
        (GMRES(4, restarts=40), positive, 1e-12),
        (Neumann(200, rate=0.36), positive, 1e-12),
        (Nystrom(N, rho=1e-7), positive, 1e-6),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_against_a_direct_solution(solver: Solver, matrix: Callable[[], Tensor], within: float) -> None:
    assert distance(solver, matrix(), normal(N, seed=5)) < within


def test_conjugate_gradient_is_optimal_in_its_space() -> None:
    """After k products the error in the norm of A is the smallest in the span of b, A b, ..., A^(k-1) b."""
    a, b, k = positive(), normal(N, seed=5), 4
    space = torch.stack([torch.linalg.matrix_power(a, i) @ b for i in range(k)], 1)
    best = space @ torch.linalg.solve(space.T @ a @ space, space.T @ b)
    assert distance(ConjugateGradient(k), a, b, best) < 1e-10


def test_normal_equations_and_gmres_have_the_smallest_residual_in_their_spaces() -> None:
    a, b, k = crooked(), normal(N, seed=5), 4
    for solver, first, power in ((GMRES(k), b, a), (NormalEquations(k), a.T @ b, a.T @ a)):
        space = torch.stack([torch.linalg.matrix_power(power, i) @ first for i in range(k)], 1)
        best = space @ torch.linalg.lstsq(a @ space, b[:, None]).solution[:, 0]
        assert distance(solver, a, b, best) < 1e-9


def test_neumann_is_the_truncated_sum() -> None:
    a, b = positive(), normal(N, seed=5)
    truth = sum((0.2 * torch.linalg.matrix_power(EYE - 0.2 * a, k) @ b for k in range(8)), torch.zeros(N))
    assert distance(Neumann(7, rate=0.2), a, b, truth) < 1e-13


def test_nystrom_is_woodbury_on_its_columns() -> None:
    a, b = positive(), normal(N, seed=5)
    solver = Nystrom(5, rho=0.1, seed=3)
    x = flatten(solved(solver, a, b).x)
    chosen = [i for i in range(N) if abs((a @ x + 0.1 * x - b)[i]) < 1e-9]  # there the picture has A's own rows
    assert len(chosen) == 5
    c, w = a[:, chosen], a[chosen][:, chosen]
    truth = torch.linalg.solve(c @ torch.linalg.inv(w) @ c.T + 0.1 * EYE, b)
    assert distance(solver, a, b, truth) < 1e-11
    assert distance(Nystrom(5, rho=0.1, seed=3, chunk=2), a, b, truth) < 1e-11
    assert distance(Nystrom(5, rho=0.1, seed=4), a, b, truth) > 1e-3, "another seed, other columns"
    full = torch.linalg.solve(a + 0.1 * EYE, b)
    assert distance(Nystrom(100, rho=0.1), a, b, full) < 1e-12, "more columns than there are: all of them"


def test_nystrom_bears_a_matrix_of_low_rank() -> None:
    c = normal(N, 2)
    a, b = c @ c.T, normal(N, seed=5)
    assert distance(Nystrom(6, rho=0.1), a, b, torch.linalg.solve(a + 0.1 * EYE, b)) < 1e-9


@pytest.mark.parametrize("solver", [ConjugateGradient(5), NormalEquations(5), Neumann(5, 0.3), GMRES(5)], ids=repr)
def test_a_guess_is_where_it_begins(solver: Solver) -> None:
    a, b = positive(), normal(N, seed=5)
    truth = torch.linalg.solve(a, b)
    cold, near = solved(solver, a, b), solved(solver, a, b, truth + 1e-6 * normal(N, seed=6))
    assert float(near.residual) < 1e-4 * float(cold.residual)
    other = solved(solver, a, b, normal(N, seed=6))
    assert float((flatten(other.x) - flatten(cold.x)).norm()) > 1e-3
    again = solved(solver, a, b, flatten(cold.x))
    assert float(again.residual) < float(cold.residual), "it goes on from the last solution"


@pytest.mark.parametrize("solver", [ConjugateGradient(), NormalEquations(), Neumann(), GMRES(), Nystrom()], ids=repr)
def test_a_right_side_of_zero_has_the_solution_zero(solver: Solver) -> None:
    solution = solved(solver, positive(), torch.zeros(N).double())
    assert float(flatten(solution.x).norm()) == 0 == float(solution.residual)


def test_what_has_converged_is_left_alone() -> None:
    solution = solved(ConjugateGradient(100), positive(), normal(N, seed=5))
    assert N - 1 <= int(solution.iterations) <= N + 3 and float(solution.residual) < 1e-11
    loose = solved(ConjugateGradient(100, tolerance=1e-3), positive(), normal(N, seed=5))
    assert int(loose.iterations) < int(solution.iterations) and 1e-8 < float(loose.residual) < 1e-3
    loose = solved(NormalEquations(100, tolerance=1e-3), crooked(), normal(N, seed=5))
    assert int(loose.iterations) < N and float(loose.residual) < 1e-2


def test_trouble_is_in_the_residual() -> None:
    b = normal(N, seed=5)
    assert float(solved(Neumann(50, rate=0.5), positive(), b).residual) > 1e3, "the rate is above 2 / 5"
    assert float(solved(Neumann(50, rate=0.1), indefinite(), b).residual) > 1e2
    stopped = solved(ConjugateGradient(50), -positive(), b)
    assert int(stopped.iterations) == 0 and float(stopped.residual) == 1.0
    assert float(solved(ConjugateGradient(50), indefinite(), b).residual) > 1e-3


@pytest.mark.parametrize(
    "solver",
    [ConjugateGradient(2), NormalEquations(2), Neumann(2), GMRES(1, 1), Nystrom(4, chunk=3)],
    ids=repr,
)
def test_vectorised_and_traced_it_is_the_same(solver: Solver) -> None:
    """With one task that converges at once beside others that do not."""
    matrices = torch.stack([positive(0), EYE, positive(1)])
    rights = torch.stack([normal(N, seed=2), normal(N, seed=3), torch.zeros(N).double()])

    def one(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        solution = solved(solver, a, b)
        return flatten(solution.x), solution.residual, solution.iterations

    whole = func.vmap(one)(matrices, rights)
    traced = make_fx(func.vmap(one))(matrices + 0.1, rights + 0.1)(matrices, rights)
    for index in range(3):
        alone = one(matrices[index], rights[index])
        for part, replayed, truth in zip(whole, traced, alone, strict=True):
            assert torch.allclose(part[index], truth, rtol=1e-10, atol=1e-12)
            assert torch.allclose(replayed[index], truth, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConjugateGradient(0),
        lambda: NormalEquations(-1),
        lambda: Neumann(0),
        lambda: Neumann(3, rate=0.0),
        lambda: Nystrom(0),
        lambda: Nystrom(3, rho=0.0),
        lambda: Nystrom(3, chunk=-2),
        lambda: GMRES(0),
        lambda: GMRES(3, restarts=-1),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make: Callable[[], Solver]) -> None:
    with pytest.raises(UsageError, match="must be"):
        make()


def test_float32_stays_float32() -> None:
    a, b = positive().float(), normal(N, seed=5).float()
    for solver in (ConjugateGradient(), NormalEquations(), Neumann(), GMRES(), Nystrom()):
        x, _ = solver(lambda x: a @ x, lambda x: a.T @ x, b, None)
        assert x.dtype == torch.float32
        if not isinstance(solver, Nystrom):
            assert float((a @ x - b).norm() / b.norm()) < 0.5
