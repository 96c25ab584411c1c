r"""Preconditioners: rules that multiply the direction by a learned matrix; :func:`sgd` sets the step size.

A diagonal preconditioner needs no rule of its own: ``sgd(Hyper(1.0, per="element"))`` multiplies every element by a
learned number of either sign (Meta-SGD, Li et al. 2017, arXiv:1707.09835). The rules here mix the elements of a tensor.
A matrix that mixes *classes* is learned for the number of classes the learner was made with. In a task with another
number of classes, where a tensor of the head has a different number of rows, that matrix is not applied.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.base import Rule, Values, part
from rbml.strategy.networks import check_widths, drawn
from rbml.strategy.views import StepInfo
from rbml.strategy.weights import Weights
from rbml.tree import Tree


@part
def kronecker(name: str = "kronecker") -> Rule:
    r"""Multiply the direction of every tensor by a learned matrix along each of its modes.

    .. math:: D \leftarrow D \times_1 M_{out} \times_2 M_{in} \times_3 M_{filter}

    where :math:`\times_n` is the product of a tensor with a matrix along its n-th mode, and the third mode comprises
    all positions of a kernel. All matrices start at the identity. On the flattened tensor they act as one matrix,
    :math:`M_{out} \otimes M_{in} \otimes M_{filter}`.

    Source: Meta-Curvature (Park and Oliva 2019, arXiv:1902.03356), with ``chain(kronecker(), sgd(lr))``. The paper
    considers weights only; here a bias, or any other one-dimensional tensor, has one learned factor per element. If the
    head has another number of rows than the learner was made with, M_out and the factors of the bias are not applied;
    M_in is.

    Cost: for a tensor of o x i x k elements, o*o + i*i + k*k numbers and o*i*k*(o + i + k) multiplications per step.

    Args:
        name: the name of the part in the strategy.
    """

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        matrices: Tree = {}
        for key, leaf in theta.items():
            for mode, size in _mode_sizes(leaf).items():
                matrices[f"{key}/{mode}"] = torch.eye(size, dtype=leaf.dtype, device=leaf.device)
            if leaf.dim() < 2:
                matrices[f"{key}/factor"] = torch.ones_like(leaf)
        return matrices

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return {key: _multiply_modes(key, leaf, values["matrices"]) for key, leaf in direction.items()}, state

    return Rule(name, {"matrices": Weights(start)}, update, direct=True)


def _mode_sizes(tensor: Tensor) -> dict[str, int]:
    """Return the names and sizes of the modes of a tensor; none if it has fewer than two dimensions."""
    sizes = (*tensor.shape[:2], *([tensor.shape[2:].numel()] if tensor.dim() > 2 else []))
    return dict(zip(("out", "in", "filter"), sizes, strict=False)) if tensor.dim() > 1 else {}


def _multiply_modes(key: str, direction: Tensor, matrices: Tree) -> Tensor:
    if direction.dim() < 2:
        factor = matrices[f"{key}/factor"]
        return direction * factor if factor.shape == direction.shape else direction
    sizes = _mode_sizes(direction)
    whole = direction.reshape(tuple(sizes.values()))
    for axis, (mode, size) in enumerate(sizes.items()):
        matrix = matrices[f"{key}/{mode}"]
        # A head made for another number of classes has another number of rows: its M_out does not fit.
        if len(matrix) == size:
            # tensordot puts the new dimension first; movedim returns it to its place.
            whole = torch.tensordot(matrix, whole, ([1], [axis])).movedim(0, axis)
    return whole.reshape(direction.shape)


@part
def low_rank(rank: int = 4, name: str = "low_rank") -> Rule:
    r"""Multiply the flattened direction of every tensor by the identity plus a learned low-rank matrix.

    .. math:: d \leftarrow (I + U V^\top)\, d, \qquad U, V \in \mathbb{R}^{n \times r}

    U starts at zero, so that the rule has no effect at first, and V at random. The matrix has the form used by
    limited-memory quasi-Newton methods (Byrd, Nocedal, Schnabel 1994), but it is learned across tasks, need not be
    symmetric or definite, and can couple any two elements of a tensor. It does not follow one particular paper; Simon
    et al. (2020, "On modulating the gradient for meta-learning") let a network compute a low-rank factor for every
    task. A tensor of the head whose number of rows differs from the one the learner was made with passes unchanged.

    Cost: 2 r numbers and 2 r multiplications per element.

    Args:
        rank: the rank r of the learned matrix.
        name: the name of the part in the strategy.

    Raises:
        UsageError: if the rank is below 1.
    """
    check_widths("the rank", rank)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        factors: Tree = {}
        for key, leaf in theta.items():
            # Only one of the two factors may start at zero: the gradient of each is proportional to the other.
            factors[f"{key}/u"] = leaf.new_zeros((rank, *leaf.shape))
            factors[f"{key}/v"] = drawn((rank, *leaf.shape), leaf.numel() ** -0.5, leaf, generator)
        return factors

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        factors = values["factors"]
        return {
            key: _multiply_low_rank(d, factors[f"{key}/u"], factors[f"{key}/v"]) for key, d in direction.items()
        }, state

    return Rule(name, {"factors": Weights(start)}, update, direct=True)


def _multiply_low_rank(direction: Tensor, u: Tensor, v: Tensor) -> Tensor:
    if u.shape[1:] != direction.shape:
        return direction
    along: Tensor = (v * direction).reshape(len(v), -1).sum(1)  # V^T d, (rank,)
    correction: Tensor = torch.tensordot(along, u, ([0], [0]))
    return direction + correction
