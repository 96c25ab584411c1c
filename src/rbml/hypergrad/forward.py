"""Forward mode: one tangent per meta-parameter is propagated through the inner loop, and no history is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, func
from torch.utils._pytree import tree_map

from rbml.autodiff.threads import forward_derivative
from rbml.errors import UsageError
from rbml.hypergrad.base import MetaGradient, outer_gradient
from rbml.inner import Carry, Inner, roll, step
from rbml.tree import Tree, pick


@dataclass(frozen=True)
class Forward:
    r"""Propagate the derivative of the carry with respect to every meta-parameter along with the carry.

    .. math:: Z_{t+1} = \frac{\partial \Phi}{\partial c} Z_t + \frac{\partial \Phi}{\partial m}, \qquad
              \frac{dL}{dm} = \partial_m L + \partial_c L \cdot Z_T

    Exact. It is blind to no meta-parameter. Memory: independent of T: ``chunk`` carries and as many copies of the
    activations of one step. Time: one inner loop in forward mode per meta-parameter, about two gradients per step each;
    it suits few numbers in phi and any T. Source: Franceschi et al. 2017 (arXiv:1703.01785, Forward-HG). :func:`begin`,
    :func:`advance` and :func:`derivative` do the same step by step; :mod:`rbml.hypergrad.online` learns in between.

    Args:
        chunk: the number of tangents propagated at once.
        limit: the largest number of meta-parameters, counted by element.

    Raises:
        UsageError: if ``chunk`` or ``limit`` is below 1, or, when called, if m has more elements than ``limit``.
    """

    chunk: int = 64
    limit: int = 1000

    def __post_init__(self) -> None:
        """Check the options."""
        if self.chunk < 1 or self.limit < 1:
            raise UsageError(f"chunk and limit must be at least 1, not {self.chunk} and {self.limit}")

    def __call__(self, inner: Inner, m: Tree) -> MetaGradient:
        """Return the outer loss and its derivative with respect to ``m``."""
        total = sum(leaf.numel() for leaf in m.values())
        if total > self.limit:
            raise UsageError(
                f"Forward needs one tangent per meta-parameter, and there are {total:,}, more than "
                f"limit={self.limit:,}: use Adjoint, or fix theta0 (learner.model.requires_grad_(False)) and learn "
                "only phi"
            )
        parts: list[Tensor] = []
        for start in range(0, total, self.chunk):
            run = begin(inner, m, directions(m, start, min(start + self.chunk, total)))
            for _ in range(inner.steps):
                run = advance(inner, m, run)
            loss, aux, part = derivative(inner, m, run)
            parts.append(part)
        if not parts:  # nothing is learned: only the loss is wanted
            loss, aux = inner.outer(roll(inner, inner.start(m), m), m)
        return MetaGradient(loss, unflattened(torch.cat([*parts, loss.new_zeros(0)]), m), aux, {})


class Run(NamedTuple):
    """An unfinished inner loop with its derivative.

    Attributes:
        t: the number of steps taken so far.
        carry: the carry after them.
        tangents: its derivative along each direction: the same trees with a leading dimension of directions.
        directions: the directions of the derivative: a tree like m, or like a part of it, with a leading dimension of
            directions.
    """

    t: int
    carry: Carry
    tangents: Carry
    directions: Tree


def directions(m: Tree, start: int, stop: int) -> Tree:
    """Return unit directions for the elements ``start`` to ``stop - 1`` of ``m``, counted through all leaves."""
    found: Tree = {}
    offset = -start
    for name, leaf in m.items():
        place = torch.arange(leaf.numel(), device=leaf.device) + offset
        own = place == torch.arange(stop - start, device=leaf.device)[:, None]
        found[name] = own.to(leaf.dtype).reshape(stop - start, *leaf.shape)
        offset += leaf.numel()
    return found


def unflattened(numbers: Tensor, like: Tree) -> Tree:
    """Return a vector of numbers as a tree with the names and shapes of another."""
    pieces = torch.split(numbers, [leaf.numel() for leaf in like.values()])
    return {name: piece.reshape(leaf.shape) for (name, leaf), piece in zip(like.items(), pieces, strict=True)}


def begin(inner: Inner, m: Tree, directions: Tree) -> Run:
    """Start a run and its derivative along ``directions``."""
    carry, tangents = _push_forward(lambda seen: inner.start(m | seen), (pick(m, directions),), (directions,))
    return Run(0, carry, tangents, directions)


def advance(inner: Inner, m: Tree, run: Run) -> Run:
    """Take the next step and propagate the derivative through it."""

    def taken(carry: Carry, seen: Tree) -> Carry:
        return step(inner, carry, m | seen, run.t)[1]

    point, ways = (run.carry, pick(m, run.directions)), (run.tangents, run.directions)
    carry, tangents = _push_forward(taken, point, ways)
    return Run(run.t + 1, carry, tangents, run.directions)


def derivative(inner: Inner, m: Tree, run: Run) -> tuple[Tensor, Tree, Tensor]:
    """Return the outer loss at the current step of a run, aux, and the derivative of the loss along each direction."""
    loss, aux, bar, m_bar = outer_gradient(inner, run.carry, m)
    seen = pick(m_bar, run.directions)
    pairs = [(run.tangents.theta, bar.theta), (run.tangents.state, bar.state), (run.directions, seen)]
    products = [ways[name] * leaf for ways, bars in pairs for name, leaf in bars.items()]
    return loss, aux, torch.stack([product.reshape(len(product), -1).sum(1) for product in products]).sum(0)


def _push_forward(function: Callable[..., Carry], point: tuple[Any, ...], ways: tuple[Any, ...]) -> tuple[Carry, Carry]:
    """Return the value at ``point`` and the derivative along each of ``ways``."""
    point = tree_map(lambda leaf: leaf.contiguous(), point)  # forward AD cannot give an expanded tensor a tangent

    def along(*way: Any) -> tuple[Carry, Carry]:
        value, tangent = forward_derivative(function, point, way)[:2]
        return value, tangent

    values, tangents = func.vmap(along)(*ways)
    # The value is the same for every direction. out_dims=None would say so, but it fails inside another vmap.
    return tree_map(lambda leaf: leaf[0], values), tangents
