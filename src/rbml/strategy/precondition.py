r"""Rules that multiply the direction by a learned matrix: preconditioners, of which :func:`sgd` sets the size.

A diagonal one needs no rule of its own: ``sgd(Hyper(1.0, per="element"))`` multiplies every element by a learned number
of either sign (Meta-SGD, Li et al. 2017, arXiv:1707.09835). The rules here mix elements of one tensor. What mixes
*classes* is learned for the number of classes that the learner was made with: where a task has another number, so that
a tensor of the head has other rows, it is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rbml.strategy.base import Rule, StepInfo, Values, part
from rbml.strategy.networks import check_widths, drawn
from rbml.strategy.weights import Weights
from rbml.tree import Tree


@part
def kronecker(name: str = "kronecker") -> Rule:
    r"""Multiply the direction of every tensor by a learned matrix along each of its modes.

    .. math:: D \leftarrow D \times_1 M_{out} \times_2 M_{in} \times_3 M_{filter}

    where :math:`\times_n` is the product of a tensor with a matrix along its n-th mode, and the third mode is that of
    the positions in a kernel, taken together. All start at the identity. On the flattened tensor it is one matrix,
    :math:`M_{out} \otimes M_{in} \otimes M_{filter}`.

    Source: Meta-Curvature (Park and Oliva 2019, arXiv:1902.03356), with ``chain(kronecker(), sgd(lr))``. The paper
    speaks of weights; a bias, or any other tensor of one mode, has one learned factor an element here. In a head with
    other rows than it was made with, M_out and the factors of the bias are left out; M_in acts.

    Cost: for a tensor of o x i x k elements o*o + i*i + k*k numbers, and o*i*k*(o + i + k) multiplications a step.

    Args:
        name: what it is filed under.
    """

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        matrices: Tree = {}
        for key, leaf in theta.items():
            for mode, size in _modes(leaf).items():
                matrices[f"{key}/{mode}"] = torch.eye(size, dtype=leaf.dtype, device=leaf.device)
            if leaf.dim() < 2:
                matrices[f"{key}/factor"] = torch.ones_like(leaf)
        return matrices

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        return {key: _multiplied(key, leaf, values["matrices"]) for key, leaf in direction.items()}, state

    return Rule(name, {"matrices": Weights(start)}, update, direct=True)


def _modes(tensor: Tensor) -> dict[str, int]:
    """Return the modes of a tensor that has several, with their sizes."""
    sizes = (*tensor.shape[:2], *([tensor.shape[2:].numel()] if tensor.dim() > 2 else []))
    return dict(zip(("out", "in", "filter"), sizes, strict=False)) if tensor.dim() > 1 else {}


def _multiplied(key: str, direction: Tensor, matrices: Tree) -> Tensor:
    if direction.dim() < 2:
        factor = matrices[f"{key}/factor"]
        return direction * factor if factor.shape == direction.shape else direction
    sizes = _modes(direction)
    whole = direction.reshape(tuple(sizes.values()))
    for axis, (mode, size) in enumerate(sizes.items()):
        matrix = matrices[f"{key}/{mode}"]
        if len(matrix) == size:
            whole = torch.tensordot(matrix, whole, ([1], [axis])).movedim(0, axis)
    return whole.reshape(direction.shape)


@part
def low_rank(rank: int = 4, name: str = "low_rank") -> Rule:
    r"""Multiply the direction of every tensor, flattened, by the identity plus a learned matrix of low rank.

    .. math:: d \leftarrow (I + U V^\top)\, d, \qquad U, V \in \mathbb{R}^{n \times r}

    U starts at zero, so that the rule starts as none, and V at random. The matrix has the form of the limited-memory
    quasi-Newton methods (Byrd, Nocedal, Schnabel 1994), but is learned across tasks, need be neither symmetric nor
    definite, and joins any two elements of a tensor. No paper is followed to the letter; Simon et al. (2020, "On
    modulating the gradient for meta-learning") let a network make a low-rank factor for every task. A tensor of a head
    with other rows than it was made with passes unchanged.

    Cost: 2 r numbers and 2 r multiplications an element.

    Args:
        rank: r.
        name: what it is filed under.

    Raises:
        UsageError: if the rank is below 1.
    """
    check_widths("the rank", rank)

    def start(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        factors: Tree = {}
        for key, leaf in theta.items():
            factors[f"{key}/u"] = leaf.new_zeros((rank, *leaf.shape))
            factors[f"{key}/v"] = drawn((rank, *leaf.shape), leaf.numel() ** -0.5, leaf, generator)
        return factors

    def update(direction: Tree, state: Tree, theta: Tree, values: Values, at: StepInfo) -> tuple[Tree, Tree]:
        factors = values["factors"]
        return {key: _corrected(d, factors[f"{key}/u"], factors[f"{key}/v"]) for key, d in direction.items()}, state

    return Rule(name, {"factors": Weights(start)}, update, direct=True)


def _corrected(direction: Tensor, u: Tensor, v: Tensor) -> Tensor:
    if u.shape[1:] != direction.shape:
        return direction
    along: Tensor = (v * direction).reshape(len(v), -1).sum(1)
    correction: Tensor = torch.tensordot(along, u, ([0], [0]))
    return direction + correction
