"""Evolution strategies: the derivative of a smoothed loss, from values of the loss alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, func

from rbml import random
from rbml.errors import UsageError
from rbml.hypergrad.base import MetaGradient
from rbml.hypergrad.solve import above_zero, at_least_one
from rbml.inner import Carry, Inner, roll
from rbml.tree import Tree, add, detach, scale


class Particles(NamedTuple):
    """Inner loops on their way, each with a history of its own; N pairs.

    Attributes:
        carry: where they are, ``(N, 2, ...)``: the loop of a perturbation and that of its mirror image.
        walk: the sum of all perturbations of a pair so far, in units of sigma, ``(N, ...)``.
        middle: where the loop without perturbations is.
        t: how many steps they have taken.
    """

    carry: Carry
    walk: Tree
    middle: Carry
    t: int


@dataclass(frozen=True)
class Evolution:
    r"""Move m at random, and weigh every move by what it does to the loss: for chaotic or non-smooth inner loops.

    .. math:: g = \frac{1}{2 N \sigma} \sum_{i=1}^{N} \sum_{w} \xi_{i,w}
        \bigl(L_w(m + \sigma \epsilon_{i,w}) - L_w(m - \sigma \epsilon_{i,w})\bigr), \qquad
        \xi_{i,w} = \sum_{v \le w} \epsilon_{i,v}, \quad \epsilon \sim \mathcal N(0, I)

    ``window=None`` is antithetic ES (Salimans et al. 2017, arXiv:1703.03864): one window, one perturbation a run, and
    the loss at its end. With ``window=K`` it is PES (Vicol et al. 2021, arXiv:2112.13835): every K steps a fresh
    perturbation, a loss (that of the outer function there; the whole run's is their **mean**, not their sum as in the
    paper), and each weighed by all perturbations so far, so that nothing is lost where a run is cut. :meth:`advance`
    takes one window, so that m may change between them, as the paper means it; :meth:`__call__` takes them all.

    Approximate, but unbiased: not for the loss itself, but for its mean over the perturbations,
    :math:`\mathbb E\, L(m + \sigma \epsilon)`, which is within :math:`O(\sigma^2)` of a smooth one (equal for a
    quadratic one). ``info["standard_error"]`` is the norm of the standard error over all of m. It grows like the root
    of the number of meta-parameters over N, and with PES like that of the number of windows: for few meta-parameters.
    One sigma serves all: it should be small for every one of them.

    Memory: ``chunk`` pairs of carries with one step of each, whatever T is, and the N estimates; ``advance`` keeps N
    pairs of carries. Time: 2 N + 1 inner loops, vectorised. It is blind to nothing, and differentiates nothing but the
    inner objective.

    The noise is a function of ``seed`` and of the bits of m: the same call gives the same result, a run that is resumed
    goes on as it would have, and an outer step, which changes m, gets fresh noise. All tasks of a batch share it: the
    estimate is that of the mean loss. A ``key`` takes the place of m's bits, such as one a task.

    Args:
        sigma: how far m is moved, a standard deviation, in the units of m.
        pairs: N.
        window: K; ``None`` is the whole run.
        chunk: how many pairs are vectorised at once; ``None`` is all of them.
        seed: other noise.

    Raises:
        UsageError: if ``sigma`` is not above 0, ``pairs`` is below 2, or ``window`` or ``chunk`` below 1.
    """

    approximate: ClassVar[bool] = True

    sigma: float = 0.01
    pairs: int = 32
    window: int | None = None
    chunk: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        above_zero("sigma", self.sigma)
        at_least_one("window", 1 if self.window is None else self.window)
        at_least_one("chunk", 1 if self.chunk is None else self.chunk)
        if self.pairs < 2:
            raise UsageError(f"pairs must be at least 2, for a standard error, not {self.pairs}")

    def __call__(self, inner: Inner, m: Tree, key: Tensor | None = None) -> MetaGradient:
        """Return the loss and an estimate of the derivative of its smoothed version with respect to ``m``.

        Args:
            inner: the problem.
            m: the meta-parameters.
            key: what the noise depends on beside the seed; ``None`` is the bits of m.
        """
        m = detach(m)
        windows = _windows(inner.steps, self.window)
        found: list[Tree] = []
        for keys in self._keys(m, key):
            carry, walk, total = Carry({}, {}), Tree(), Tree()
            for first, stop in windows:
                estimate, carry, walk = self._move(inner, m, keys, carry, walk, first, stop)
                total = add(total, scale(estimate, 1 / len(windows)))
            found.append(total)
        losses: list[Tensor] = []
        middle = inner.start(m)
        for first, stop in windows:
            middle = roll(inner, middle, m, first, stop)
            loss, aux = inner.outer(middle, m)
            losses.append(loss)
        return _result(torch.stack(losses).mean(), aux, found)

    def advance(
        self, inner: Inner, m: Tree, particles: Particles | None = None, key: Tensor | None = None
    ) -> tuple[MetaGradient, Particles]:
        """Go on by one window, for an m that may have changed since the last one.

        Args:
            inner: the problem.
            m: the meta-parameters now.
            particles: what the last call returned; ``None`` begins at the start.
            key: as in :meth:`__call__`.

        Returns:
            The loss after this window with its derivative, and the particles for the next.

        Raises:
            UsageError: if all steps are taken.
        """
        m = detach(m)
        first = 0 if particles is None else particles.t
        if particles is not None and first >= inner.steps:
            raise UsageError(f"all {inner.steps} steps are taken: begin again with particles=None")
        stop = min(first + (self.window or inner.steps), inner.steps)
        parts: list[tuple[Tree, Carry, Tree]] = []
        for number, keys in enumerate(self._keys(m, key)):
            size = self.chunk or self.pairs
            carry, walk = (Carry({}, {}), Tree()) if particles is None else _part(particles, number, size)
            parts.append(self._move(inner, m, keys, carry, walk, first, stop))
        found, carries, walks = zip(*parts, strict=True)
        middle = roll(inner, inner.start(m) if particles is None else particles.middle, m, first, stop)
        loss, aux = inner.outer(middle, m)
        carry = Carry(_joined([one.theta for one in carries]), _joined([one.state for one in carries]))
        return _result(loss, aux, list(found)), Particles(carry, _joined(list(walks)), middle, stop)

    def _keys(self, m: Tree, key: Tensor | None) -> list[Tensor]:
        """Return a key a pair, in chunks."""
        keys = random.split(random.digest(m if key is None else {"key": key}, self.seed), self.pairs)
        size = self.chunk or self.pairs
        return [keys[start : start + size] for start in range(0, self.pairs, size)]

    def _move(
        self, inner: Inner, m: Tree, keys: Tensor, carry: Carry, walk: Tree, first: int, stop: int
    ) -> tuple[Tree, Carry, Tree]:
        """Take the steps of one window for some pairs; return the estimate of each, its carries and its walk."""
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64, device=keys.device)

        def pair(key: Tensor, carry: Carry, walk: Tree) -> tuple[Tree, Carry, Tree]:
            noise = {name: random.normal(key, f"{name}|{first}", leaf) for name, leaf in m.items()}

            def one(sign: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
                moved = {name: leaf + (sign * self.sigma).to(leaf.dtype) * noise[name] for name, leaf in m.items()}
                end = roll(inner, inner.start(moved) if first == 0 else carry, moved, first, stop)
                return inner.outer(end, moved)[0], end

            losses, ends = func.vmap(one)(signs, carry)
            walk = add(walk, noise)
            return scale(walk, (losses[0] - losses[1]) / (2 * self.sigma)), ends, walk

        estimate, ends, walks = func.vmap(pair)(keys, carry, walk)
        return estimate, ends, walks


def _windows(steps: int, window: int | None) -> list[tuple[int, int]]:
    """Return the first step of every window and the one after its last."""
    length = window or max(steps, 1)
    return [(first, min(first + length, steps)) for first in range(0, max(steps, 1), length)]


def _part(particles: Particles, number: int, size: int) -> tuple[Carry, Tree]:
    """Return the pairs of one chunk."""

    def cut(tree: Tree) -> Tree:
        return {name: leaf[number * size : (number + 1) * size] for name, leaf in tree.items()}

    return Carry(cut(particles.carry.theta), cut(particles.carry.state)), cut(particles.walk)


def _joined(trees: list[Tree]) -> Tree:
    return {name: torch.cat([tree[name] for tree in trees]) for name in trees[0]}


def _result(loss: Tensor, aux: Tree, found: list[Tree]) -> MetaGradient:
    """Return the mean of the pairs' estimates, with its standard error."""
    estimates = _joined(found)
    mean = {name: leaf.mean(0) for name, leaf in estimates.items()}
    variances = [leaf.var(0).sum() / len(leaf) for leaf in estimates.values()]
    return MetaGradient(loss, mean, aux, {"standard_error": torch.stack(variances).sum().sqrt()})
