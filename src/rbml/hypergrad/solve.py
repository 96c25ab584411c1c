r"""Solvers of :math:`A x = b` that use A only through products with vectors.

Every solver takes a fixed number of iterations, so that it works under ``vmap`` over tasks and in a traced graph. The
residual is computed afterwards, by one more product, and returned: the caller decides whether it is small enough. n is
the number of unknowns; a product costs about two gradients of the inner objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, func

from rbml import random
from rbml.errors import UsageError
from rbml.tree import Tree

Product = Callable[[Tree], Tree]
Matrix = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """The result of a solver.

    Attributes:
        x: the solution.
        residual: the computed relative residual :math:`|b - A x| / |b|`, a scalar.
        iterations: the number of iterations that changed x, a scalar.
    """

    x: Tree
    residual: Tensor
    iterations: Tensor


class Solver(Protocol):
    """The interface of a solver; it works on vectors."""

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x ``(n,)`` and the number of iterations.

        Args:
            a: ``x -> A x``.
            transposed: ``x -> A^T x``.
            b: the right-hand side ``(n,)``.
            guess: the initial x; ``None`` is zero and saves one product.
        """
        ...


def solve(solver: Solver, a: Product, transposed: Product, b: Tree, guess: Tree | None = None) -> Solution:
    """Solve ``A x = b`` for trees.

    Args:
        solver: the solver to use.
        a: ``x -> A x``, from and to trees like b.
        transposed: ``x -> A^T x``; the same function if A is symmetric.
        b: the right-hand side.
        guess: an initial solution, such as that of the last call; ``None`` is zero.
    """
    right = flatten(b)

    def on_vectors(product: Product) -> Matrix:
        return lambda x: flatten(product(unflatten(x, b)))

    matrix = on_vectors(a)
    start = None if guess is None else flatten({name: guess[name] for name in b})  # in the order of b
    x, iterations = solver(matrix, on_vectors(transposed), right, start)
    left = torch.linalg.vector_norm(right - matrix(x))
    size = torch.linalg.vector_norm(right)
    return Solution(unflatten(x, b), left / torch.where(size > 0, size, 1), iterations)


@dataclass(frozen=True)
class ConjugateGradient:
    r"""Conjugate gradient for a symmetric positive definite A.

    .. math:: x_{k+1} = x_k + \frac{r_k^T r_k}{p_k^T A p_k} p_k, \qquad
        p_{k+1} = r_{k+1} + \frac{r_{k+1}^T r_{k+1}}{r_k^T r_k} p_k

    Exact after n iterations up to rounding; the error decreases like
    :math:`((\sqrt\kappa - 1) / (\sqrt\kappa + 1))^k` with the condition number :math:`\kappa`. It stops at the first
    direction of negative curvature, where its formula is not valid; the residual then stays large.
    Source: Hestenes and Stiefel 1952; as used in iMAML (Rajeswaran et al. 2019, arXiv:1909.04630). Cost: one product
    per iteration, and four vectors.

    Args:
        iterations: the number of iterations.
        tolerance: the relative residual at which a task stops changing.

    Raises:
        UsageError: if ``iterations`` is below 1.
    """

    iterations: int = 20
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        """Check the options."""
        at_least_one("iterations", self.iterations)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations; see :class:`Solver`."""
        return _conjugate(a, lambda x: x, b, guess, self.iterations, self.tolerance)


@dataclass(frozen=True)
class NormalEquations:
    r"""Conjugate gradient on the normal equations (CGNR), for any invertible A.

    .. math:: A^T A\, x = A^T b

    Exact after n iterations up to rounding. The condition number of :math:`A^T A` is the square of that of A, so that
    it needs more iterations than :class:`ConjugateGradient` where both apply.
    Source: Hestenes and Stiefel 1952, section 10. Cost: per iteration one product with A and one with its transpose,
    and four vectors.

    Args:
        iterations: the number of iterations.
        tolerance: a task stops changing once :math:`|A^T(b - A x)|` is below this fraction of :math:`|A^T b|`.

    Raises:
        UsageError: if ``iterations`` is below 1.
    """

    iterations: int = 40
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        """Check the options."""
        at_least_one("iterations", self.iterations)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations; see :class:`Solver`."""
        return _conjugate(a, transposed, b, guess, self.iterations, self.tolerance, normal=True)


def _conjugate(
    a: Matrix, back: Matrix, b: Tensor, guess: Tensor | None, iterations: int, tolerance: float, normal: bool = False
) -> tuple[Tensor, Tensor]:
    """Run conjugate gradient; the residual lives in the space of b, and ``back`` maps it to the space of x."""
    x, left = _first_residual(a, b, guess)
    pulled = back(left)
    direction, size = pulled, pulled @ pulled
    # The tolerance is relative to b. Without a guess the first residual is b itself.
    aim = torch.linalg.vector_norm(pulled if guess is None else back(b))
    stop, taken = (tolerance * aim) ** 2, torch.zeros((), dtype=torch.int64, device=b.device)
    for _ in range(iterations):
        image = a(direction)
        curvature = image @ image if normal else direction @ image
        # Under vmap all tasks take all iterations, so a task stops by masks; `where` keeps its divisions finite.
        going = (size > stop) & (curvature > 0)
        length = torch.where(going, size / torch.where(going, curvature, 1), 0)
        x, left = x + length * direction, left - length * image
        pulled = back(left)
        after = pulled @ pulled
        turned = pulled + after / torch.where(going, size, 1) * direction
        # A stopped task keeps its direction and size, so that it stays stopped.
        direction, size = torch.where(going, turned, direction), torch.where(going, after, size)
        taken = taken + going
    return x, taken


@dataclass(frozen=True)
class Neumann:
    r"""The truncated Neumann series, for an A such that :math:`I - \alpha A` has a spectral radius below 1.

    .. math:: A^{-1} b = \alpha \sum_{k=0}^{\infty} (I - \alpha A)^k b \approx \alpha \sum_{k=0}^{K} (I - \alpha A)^k b

    If ``rate`` is the inner learning rate, it equals backpropagation through the last K steps, all evaluated at the
    final theta. It needs :math:`\alpha < 2 / \lambda_{max}` and **diverges** otherwise, and also if A has a negative
    eigenvalue (an unconverged run); the residual is then far above 1.
    Source: Lorraine et al. 2020 (arXiv:1911.02590), algorithm 3. Cost: one product per iteration, and two vectors.

    Args:
        iterations: K, the number of terms after the first.
        rate: alpha, the step size.

    Raises:
        UsageError: if ``iterations`` is below 1, or ``rate`` is not above 0.
    """

    iterations: int = 20
    rate: float = 0.1

    def __post_init__(self) -> None:
        """Check the options."""
        at_least_one("iterations", self.iterations)
        above_zero("rate", self.rate)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations; see :class:`Solver`."""
        x, left = _first_residual(a, b, guess)
        for _ in range(self.iterations):
            # `left` is the residual, and (I - alpha A)^k b at the same time: adding it extends the series by one term.
            x, left = x + self.rate * left, left - self.rate * a(left)
        return x + self.rate * left, torch.tensor(self.iterations, device=b.device)


@dataclass(frozen=True)
class Nystrom:
    r"""The inverse of a low-rank approximation of A, by Woodbury's formula; for a symmetric A.

    .. math:: x = (C W^+ C^T + \rho I)^{-1} b
        = \tfrac1\rho \left(b - C (\rho W + C^T C)^+ C^T b\right), \qquad C = A_{:,S},\; W = A_{S,S}

    S is a set of ``rank`` random columns. There is no iteration that could diverge, but :math:`\rho` is a damping, and
    the error it causes remains whatever the rank. A guess is not used because the method is direct.
    Source: Hataya and Yamada 2023 (arXiv:2302.09726). Cost: ``rank`` products, all at once or ``chunk`` at a time;
    memory for ``2 rank`` vectors and ``chunk`` products; the columns are drawn by sorting n numbers.

    Args:
        rank: the number of columns.
        rho: the damping, above 0.
        seed: selects the columns, which are the same for every task.
        chunk: how many products are vectorised at once; ``None`` is all of them.

    Raises:
        UsageError: if ``rank`` or ``chunk`` is below 1, or ``rho`` is not above 0.
    """

    rank: int = 10
    rho: float = 0.01
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        at_least_one("rank", self.rank)
        at_least_one("chunk", self.chunk or 1)
        above_zero("rho", self.rho)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of columns; see :class:`Solver`."""
        # Unit vectors by comparison, because F.one_hot reads values, which vmap does not allow.
        order = random.uniform(torch.tensor(self.seed, device=b.device), "nystrom", torch.empty_like(b)).argsort()
        chosen = order[: self.rank]
        units = (chosen[:, None] == torch.arange(len(b), device=b.device)).to(b.dtype)
        columns = func.vmap(a, chunk_size=self.chunk)(units)  # C^T, (rank, n)
        core = self.rho * columns[:, chosen] + columns @ columns.T
        # Rounding leaves the core slightly asymmetric; the pseudo-inverse allows linearly dependent columns.
        middle = torch.linalg.pinv((core + core.T) / 2, hermitian=True)
        return (b - (middle @ (columns @ b)) @ columns) / self.rho, torch.tensor(len(chosen), device=b.device)


@dataclass(frozen=True)
class GMRES:
    r"""GMRES, the smallest residual in a Krylov space, for any invertible A.

    .. math:: \min_{x \in x_0 + \mathrm{span}(r, A r, \dots, A^{K-1} r)} |b - A x|

    It uses Arnoldi's method with each vector orthogonalised twice, and a small least-squares problem. Exact after n
    iterations up to rounding; the residual never increases. For a symmetric A it is equivalent to MINRES, which unlike
    :class:`ConjugateGradient` also works with negative eigenvalues.
    Source: Saad and Schultz 1986. Cost: one product per iteration, and ``iterations + 1`` vectors.

    Args:
        iterations: K, the dimension of the space.
        restarts: the number of restarts from the current x; they need less memory than one larger space.

    Raises:
        UsageError: if ``iterations`` is below 1 or ``restarts`` negative.
    """

    iterations: int = 20
    restarts: int = 0

    def __post_init__(self) -> None:
        """Check the options."""
        at_least_one("iterations", self.iterations)
        at_least_one("restarts + 1", self.restarts + 1)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations; see :class:`Solver`."""
        x, left = _first_residual(a, b, guess)
        x = x + _krylov(a, left, self.iterations)
        for _ in range(self.restarts):
            x = x + _krylov(a, b - a(x), self.iterations)
        return x, torch.tensor(self.iterations * (self.restarts + 1), device=b.device)


def _krylov(a: Matrix, left: Tensor, dimension: int) -> Tensor:
    """Return what GMRES adds to x for the residual ``left``."""
    size = torch.linalg.vector_norm(left)
    basis = [_unit(left, size)]
    columns: list[Tensor] = []
    for _ in range(dimension):
        image = a(basis[-1])
        whole, before = torch.stack(basis), torch.linalg.vector_norm(image)
        # Gram-Schmidt twice: a single pass loses orthogonality to rounding.
        first = whole @ image
        image = image - first @ whole
        second = whole @ image
        image = image - second @ whole
        length = torch.linalg.vector_norm(image)
        # A remainder at the level of rounding is not a new direction: the space is complete.
        length = torch.where(length > 10 * torch.finfo(left.dtype).eps * before, length, 0)
        columns.append(torch.cat([first + second, length[None], left.new_zeros(dimension - len(columns) - 1)]))
        basis.append(_unit(image, length))
    # The columns form the Hessenberg matrix H, and the residual is |size * e1 - H w|. pinv allows zero columns.
    weights: Tensor = torch.linalg.pinv(torch.stack(columns, 1))[:, 0] * size
    return weights @ torch.stack(basis[:-1])


def _unit(vector: Tensor, length: Tensor) -> Tensor:
    return torch.where(length > 0, vector / torch.where(length > 0, length, 1), 0)


def _first_residual(a: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the initial x and its residual."""
    return (torch.zeros_like(b), b) if guess is None else (guess, b - a(guess))


def flatten(tree: Tree) -> Tensor:
    """Return all leaves as one vector."""
    return torch.cat([leaf.reshape(-1) for leaf in tree.values()])


def unflatten(vector: Tensor, like: Tree) -> Tree:
    """Return a vector as a tree; the inverse of :func:`flatten`."""
    parts = torch.split(vector, [leaf.numel() for leaf in like.values()])
    return {name: part.reshape(leaf.shape) for (name, leaf), part in zip(like.items(), parts, strict=True)}


def at_least_one(name: str, number: int) -> None:
    """Check that a count is at least 1.

    Raises:
        UsageError: if it is not; the message contains the name.
    """
    if number < 1:
        raise UsageError(f"{name} must be at least 1, not {number}")


def above_zero(name: str, number: float) -> None:
    """Check that a number is above 0.

    Raises:
        UsageError: if it is not; the message contains the name.
    """
    if not number > 0:
        raise UsageError(f"{name} must be a number above 0, not {number}")
