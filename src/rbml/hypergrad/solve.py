r"""Solvers of :math:`A x = b` that know A by its products alone.

Every solver takes a fixed number of iterations, so that it works under ``vmap`` over tasks and in a traced graph, and
the residual is measured afterwards, with one more product, and handed back: whether it is small is for the caller to
judge. n is the number of unknowns, a product costs about two gradients of the inner objective.
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
    """What came out.

    Attributes:
        x: the unknowns.
        residual: :math:`|b - A x| / |b|`, a scalar, measured.
        iterations: how many iterations changed x, a scalar.
    """

    x: Tree
    residual: Tensor
    iterations: Tensor


class Solver(Protocol):
    """How the system is solved: a choice of its own, on vectors."""

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x ``(n,)`` and how many iterations were taken.

        Args:
            a: ``x -> A x``.
            transposed: ``x -> A^T x``.
            b: the right side ``(n,)``.
            guess: where to begin; ``None`` is zero, and saves a product.
        """
        ...


def solve(solver: Solver, a: Product, transposed: Product, b: Tree, guess: Tree | None = None) -> Solution:
    """Solve ``A x = b`` for trees.

    Args:
        solver: how.
        a: ``x -> A x``, from and to trees like b.
        transposed: ``x -> A^T x``; the same function where A is symmetric.
        b: the right side.
        guess: a first solution to improve on, such as the last one; ``None`` is zero.
    """
    right = flatten(b)

    def on_vectors(product: Product) -> Matrix:
        return lambda x: flatten(product(unflatten(x, b)))

    matrix = on_vectors(a)
    start = None if guess is None else flatten({name: guess[name] for name in b})
    x, iterations = solver(matrix, on_vectors(transposed), right, start)
    left = torch.linalg.vector_norm(right - matrix(x))
    size = torch.linalg.vector_norm(right)
    return Solution(unflatten(x, b), left / torch.where(size > 0, size, 1), iterations)


@dataclass(frozen=True)
class ConjugateGradient:
    r"""Conjugate gradient, for a symmetric positive definite A.

    .. math:: x_{k+1} = x_k + \frac{r_k^T r_k}{p_k^T A p_k} p_k, \qquad
        p_{k+1} = r_{k+1} + \frac{r_{k+1}^T r_{k+1}}{r_k^T r_k} p_k

    Exact after n iterations but for rounding; the error falls like
    :math:`((\sqrt\kappa - 1) / (\sqrt\kappa + 1))^k` with the condition :math:`\kappa`. It stops for good at a
    direction of negative curvature, where its formula means nothing: the residual then stays large.
    Source: Hestenes and Stiefel 1952; as used in iMAML (Rajeswaran et al. 2019, arXiv:1909.04630). Cost: a product an
    iteration, four vectors.

    Args:
        iterations: how many.
        tolerance: a task whose relative residual is below it changes no more.

    Raises:
        UsageError: if ``iterations`` is below 1.
    """

    iterations: int = 20
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        """Refuse a count that means nothing."""
        at_least_one("iterations", self.iterations)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations, as :class:`Solver` says."""
        return _conjugate(a, lambda x: x, b, guess, self.iterations, self.tolerance)


@dataclass(frozen=True)
class NormalEquations:
    r"""Conjugate gradient on the normal equations (CGNR), for any A that has an inverse.

    .. math:: A^T A\, x = A^T b

    Exact after n iterations but for rounding; :math:`A^T A` has the square of A's condition, so it needs more of them
    than :class:`ConjugateGradient` where both work.
    Source: Hestenes and Stiefel 1952, section 10. Cost: a product with A and one with its transpose an iteration, four
    vectors.

    Args:
        iterations: how many.
        tolerance: a task is left alone once :math:`|A^T(b - A x)|` is below this part of :math:`|A^T b|`.

    Raises:
        UsageError: if ``iterations`` is below 1.
    """

    iterations: int = 40
    tolerance: float = 1e-12

    def __post_init__(self) -> None:
        """Refuse a count that means nothing."""
        at_least_one("iterations", self.iterations)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations, as :class:`Solver` says."""
        return _conjugate(a, transposed, b, guess, self.iterations, self.tolerance, normal=True)


def _conjugate(
    a: Matrix, back: Matrix, b: Tensor, guess: Tensor | None, iterations: int, tolerance: float, normal: bool = False
) -> tuple[Tensor, Tensor]:
    """Run conjugate gradient with the residual kept in the space of b, and its pull ``back`` in that of x."""
    x, left = _begin(a, b, guess)
    pulled = back(left)
    direction, size = pulled, pulled @ pulled
    aim = torch.linalg.vector_norm(pulled if guess is None else back(b))
    stop, taken = (tolerance * aim) ** 2, torch.zeros((), dtype=torch.int64, device=b.device)
    for _ in range(iterations):
        image = a(direction)
        curvature = image @ image if normal else direction @ image
        going = (size > stop) & (curvature > 0)
        length = torch.where(going, size / torch.where(going, curvature, 1), 0)
        x, left = x + length * direction, left - length * image
        pulled = back(left)
        after = pulled @ pulled
        turned = pulled + after / torch.where(going, size, 1) * direction
        # A task that has stopped keeps its direction and its size, and so stays where it is.
        direction, size = torch.where(going, turned, direction), torch.where(going, after, size)
        taken = taken + going
    return x, taken


@dataclass(frozen=True)
class Neumann:
    r"""The truncated Neumann series, for an A whose :math:`I - \alpha A` shrinks.

    .. math:: A^{-1} b = \alpha \sum_{k=0}^{\infty} (I - \alpha A)^k b \approx \alpha \sum_{k=0}^{K} (I - \alpha A)^k b

    With ``rate`` the inner learning rate it is backpropagation through the last K steps, all taken at the last theta.
    It needs :math:`\alpha < 2 / \lambda_{max}`: beyond, it **blows up**, and so it does where an eigenvalue of A is
    negative (an unconverged run): the residual, then far above 1, says so.
    Source: Lorraine et al. 2020 (arXiv:1911.02590), algorithm 3. Cost: a product an iteration, two vectors.

    Args:
        iterations: K.
        rate: alpha.

    Raises:
        UsageError: if ``iterations`` is below 1, or ``rate`` is not above 0.
    """

    iterations: int = 20
    rate: float = 0.1

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        at_least_one("iterations", self.iterations)
        above_zero("rate", self.rate)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations, as :class:`Solver` says."""
        x, left = _begin(a, b, guess)
        for _ in range(self.iterations):
            x, left = x + self.rate * left, left - self.rate * a(left)
        return x + self.rate * left, torch.tensor(self.iterations, device=b.device)


@dataclass(frozen=True)
class Nystrom:
    r"""The inverse of a low-rank picture of A, by Woodbury's formula; for a symmetric A.

    .. math:: x = (C W^+ C^T + \rho I)^{-1} b
        = \tfrac1\rho \left(b - C (\rho W + C^T C)^+ C^T b\right), \qquad C = A_{:,S},\; W = A_{S,S}

    S are ``rank`` random columns. There is no iteration and nothing to diverge, but :math:`\rho` is a damping, whose
    error stays whatever the rank. A guess is not used: there is nothing to begin from.
    Source: Hataya and Yamada 2023 (arXiv:2302.09726). Cost: ``rank`` products, all at once or ``chunk`` at a time;
    memory of ``2 rank`` vectors and of ``chunk`` products; the columns are drawn by sorting n numbers.

    Args:
        rank: how many columns.
        rho: the damping, above 0.
        seed: which columns; the same for every task.
        chunk: how many products are vectorised at once; ``None`` is all of them.

    Raises:
        UsageError: if ``rank`` or ``chunk`` is below 1, or ``rho`` is not above 0.
    """

    rank: int = 10
    rho: float = 0.01
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        at_least_one("rank", self.rank)
        at_least_one("chunk", self.chunk or 1)
        above_zero("rho", self.rho)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of columns, as :class:`Solver` says."""
        order = random.uniform(torch.tensor(self.seed, device=b.device), "nystrom", torch.empty_like(b)).argsort()
        chosen = order[: self.rank]
        units = (chosen[:, None] == torch.arange(len(b), device=b.device)).to(b.dtype)
        columns = func.vmap(a, chunk_size=self.chunk)(units)  # C^T, (rank, n)
        core = self.rho * columns[:, chosen] + columns @ columns.T
        middle = torch.linalg.pinv((core + core.T) / 2, hermitian=True)
        return (b - (middle @ (columns @ b)) @ columns) / self.rho, torch.tensor(len(chosen), device=b.device)


@dataclass(frozen=True)
class GMRES:
    r"""The smallest residual in a Krylov space, for any A that has an inverse.

    .. math:: \min_{x \in x_0 + \mathrm{span}(r, A r, \dots, A^{K-1} r)} |b - A x|

    By Arnoldi's method with every vector made orthogonal twice, and a small least-squares problem. Exact after n
    iterations but for rounding; the residual never grows. For a symmetric A it is MINRES, which unlike
    :class:`ConjugateGradient` does not mind negative eigenvalues.
    Source: Saad and Schultz 1986. Cost: a product an iteration, ``iterations + 1`` vectors.

    Args:
        iterations: K, the dimension of the space.
        restarts: how often it begins anew from what it has: less memory than one space as large.

    Raises:
        UsageError: if ``iterations`` is below 1 or ``restarts`` negative.
    """

    iterations: int = 20
    restarts: int = 0

    def __post_init__(self) -> None:
        """Refuse counts that mean nothing."""
        at_least_one("iterations", self.iterations)
        at_least_one("restarts + 1", self.restarts + 1)

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x and the number of iterations, as :class:`Solver` says."""
        x, left = _begin(a, b, guess)
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
        first = whole @ image
        image = image - first @ whole
        second = whole @ image
        image = image - second @ whole
        length = torch.linalg.vector_norm(image)
        # What is left by rounding alone is no direction: the space is complete.
        length = torch.where(length > 10 * torch.finfo(left.dtype).eps * before, length, 0)
        columns.append(torch.cat([first + second, length[None], left.new_zeros(dimension - len(columns) - 1)]))
        basis.append(_unit(image, length))
    weights: Tensor = torch.linalg.pinv(torch.stack(columns, 1))[:, 0] * size
    return weights @ torch.stack(basis[:-1])


def _unit(vector: Tensor, length: Tensor) -> Tensor:
    return torch.where(length > 0, vector / torch.where(length > 0, length, 1), 0)


def _begin(a: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the first x and its residual."""
    return (torch.zeros_like(b), b) if guess is None else (guess, b - a(guess))


def flatten(tree: Tree) -> Tensor:
    """Return all leaves in one vector."""
    return torch.cat([leaf.reshape(-1) for leaf in tree.values()])


def unflatten(vector: Tensor, like: Tree) -> Tree:
    """Return the leaves of a vector: the inverse of :func:`flatten`."""
    parts = torch.split(vector, [leaf.numel() for leaf in like.values()])
    return {name: part.reshape(leaf.shape) for (name, leaf), part in zip(like.items(), parts, strict=True)}


def at_least_one(name: str, number: int) -> None:
    """Refuse a count below 1.

    Raises:
        UsageError: naming it.
    """
    if number < 1:
        raise UsageError(f"{name} must be at least 1, not {number}")


def above_zero(name: str, number: float) -> None:
    """Refuse a number that is not above 0.

    Raises:
        UsageError: naming it.
    """
    if not number > 0:
        raise UsageError(f"{name} must be a number above 0, not {number}")
