"""Evolution strategies: the derivative of a smoothed loss, estimated from loss values alone."""

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
    """N pairs of unfinished inner loops, each pair with its own history of perturbations.

    Attributes:
        carry: the carries, ``(N, 2, ...)``: of the loop with a perturbation and of the loop with its negative.
        walk: the sum of a pair's perturbations so far, in units of sigma, ``(N, ...)``.
        middle: the carry of the unperturbed loop.
        t: the number of steps taken so far.
    """

    carry: Carry
    walk: Tree
    middle: Carry
    t: int


@dataclass(frozen=True)
class Evolution:
    r"""Perturb m at random and average the perturbations, weighted by the loss: for chaotic or non-smooth inner loops.

    .. math:: g = \frac{1}{2 N \sigma} \sum_{i=1}^{N} \sum_{w} \xi_{i,w}
        \bigl(L_w(m + \sigma \epsilon_{i,w}) - L_w(m - \sigma \epsilon_{i,w})\bigr), \qquad
        \xi_{i,w} = \sum_{v \le w} \epsilon_{i,v}, \quad \epsilon \sim \mathcal N(0, I)

    ``window=None`` is antithetic ES (Salimans et al. 2017, arXiv:1703.03864): a single window, one perturbation per
    run, and the loss at the end of the run. ``window=K`` is PES (Vicol et al. 2021, arXiv:2112.13835): every K steps
    there is a new perturbation, and the outer loss at that point is weighted by the sum of all perturbations so far, so
    that truncating the run causes no bias. The loss of the run is the **mean** over the windows, where the paper takes
    the sum. :meth:`advance` takes one window, so that m may change between windows, as in the paper; :meth:`__call__`
    takes all of them.

    Approximate. It is an unbiased estimate of the gradient of the smoothed loss
    :math:`\mathbb E\, L(m + \sigma \epsilon)`, which differs from a smooth L by :math:`O(\sigma^2)` (its gradient is
    that of L if L is quadratic). ``info["standard_error"]`` is the norm of the standard error over all of m. It grows
    with the square root of the number of meta-parameters divided by N, and for PES also with the square root of the
    number of windows; use it for few meta-parameters. All of them share one sigma, which should be small for each.

    Memory: ``chunk`` pairs of carries and one step for each, whatever T is, plus the N estimates; :meth:`advance` keeps
    N pairs of carries. Time: 2 N + 1 inner loops, vectorised. It is blind to no meta-parameter, and the only derivative
    it takes is the gradient of the inner objective.

    The noise is a function of ``seed`` and of the bits of m. The same call therefore gives the same result, a resumed
    run continues as it would have, and every outer step, which changes m, gets new noise. All tasks of a batch share
    the noise, so that the estimate is that of the mean loss. A ``key``, such as one per task, replaces the bits of m.

    Args:
        sigma: the standard deviation of the perturbations, in the units of m.
        pairs: N, the number of antithetic pairs.
        window: K, the number of steps per window; ``None`` is the whole run.
        chunk: how many pairs are vectorised at once; ``None`` is all of them.
        seed: selects the noise.

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
        """Check the options."""
        above_zero("sigma", self.sigma)
        at_least_one("window", 1 if self.window is None else self.window)
        at_least_one("chunk", 1 if self.chunk is None else self.chunk)
        if self.pairs < 2:
            raise UsageError(f"pairs must be at least 2 (a standard error needs two estimates), not {self.pairs}")

    def __call__(self, inner: Inner, m: Tree, key: Tensor | None = None) -> MetaGradient:
        """Return the loss and an estimate of the gradient of the smoothed loss with respect to ``m``.

        Args:
            inner: the problem.
            m: the meta-parameters.
            key: what the noise depends on besides the seed; ``None`` means the bits of m.
        """
        m = detach(m)
        windows = _windows(inner.steps, self.window)
        found: list[Tree] = []
        for keys in self._keys(m, key):
            # Empty trees stand for "no history": the first window starts every loop from `inner.start`.
            carry, walk, total = Carry({}, {}), Tree(), Tree()
            for first, stop in windows:
                estimate, carry, walk = self._run_window(inner, m, keys, carry, walk, first, stop)
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
        """Continue by one window, with an m that may have changed since the last one.

        Args:
            inner: the problem.
            m: the current meta-parameters.
            particles: the particles that the last call returned; ``None`` starts a new run.
            key: as in :meth:`__call__`.

        Returns:
            The loss after this window with its derivative, and the particles for the next window.

        Raises:
            UsageError: if all steps have been taken.
        """
        m = detach(m)
        first = 0 if particles is None else particles.t
        if particles is not None and first >= inner.steps:
            raise UsageError(f"all {inner.steps} steps have been taken: start a new run with particles=None")
        stop = min(first + (self.window or inner.steps), inner.steps)
        parts: list[tuple[Tree, Carry, Tree]] = []
        for number, keys in enumerate(self._keys(m, key)):
            size = self.chunk or self.pairs
            carry, walk = (Carry({}, {}), Tree()) if particles is None else _chunk_of(particles, number, size)
            parts.append(self._run_window(inner, m, keys, carry, walk, first, stop))
        found, carries, walks = zip(*parts, strict=True)
        middle = roll(inner, inner.start(m) if particles is None else particles.middle, m, first, stop)
        loss, aux = inner.outer(middle, m)
        carry = Carry(_concatenated([one.theta for one in carries]), _concatenated([one.state for one in carries]))
        return _result(loss, aux, list(found)), Particles(carry, _concatenated(list(walks)), middle, stop)

    def _keys(self, m: Tree, key: Tensor | None) -> list[Tensor]:
        """Return one key per pair, in chunks."""
        # One key per pair, drawn for all pairs before they are divided: `chunk` does not change the result.
        keys = random.split(random.digest(m if key is None else {"key": key}, self.seed), self.pairs)
        size = self.chunk or self.pairs
        return [keys[start : start + size] for start in range(0, self.pairs, size)]

    def _run_window(
        self, inner: Inner, m: Tree, keys: Tensor, carry: Carry, walk: Tree, first: int, stop: int
    ) -> tuple[Tree, Carry, Tree]:
        """Take the steps of one window for some pairs; return each pair's estimate, carries and walk."""
        signs = torch.tensor([1.0, -1.0], dtype=torch.float64, device=keys.device)

        def pair(key: Tensor, carry: Carry, walk: Tree) -> tuple[Tree, Carry, Tree]:
            # The first step of the window is part of the name, so that every window draws its own noise.
            noise = {name: random.normal(key, f"{name}|{first}", leaf) for name, leaf in m.items()}

            def one(sign: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
                moved = {name: leaf + (sign * self.sigma).to(leaf.dtype) * noise[name] for name, leaf in m.items()}
                end = roll(inner, inner.start(moved) if first == 0 else carry, moved, first, stop)
                return inner.outer(end, moved)[0], end

            losses, ends = func.vmap(one)(signs, carry)
            # PES: the loss depends on the perturbations of all windows so far through the carry. Weighting it by
            # their sum, and not by the newest alone, is what makes the estimate unbiased.
            walk = add(walk, noise)
            return scale(walk, (losses[0] - losses[1]) / (2 * self.sigma)), ends, walk

        estimate, ends, walks = func.vmap(pair)(keys, carry, walk)
        return estimate, ends, walks


def _windows(steps: int, window: int | None) -> list[tuple[int, int]]:
    """Return for every window its first step and the step after its last."""
    length = window or max(steps, 1)  # a loop without steps has one window, which is empty
    return [(first, min(first + length, steps)) for first in range(0, max(steps, 1), length)]


def _chunk_of(particles: Particles, number: int, size: int) -> tuple[Carry, Tree]:
    """Return the pairs of one chunk."""

    def cut(tree: Tree) -> Tree:
        return {name: leaf[number * size : (number + 1) * size] for name, leaf in tree.items()}

    return Carry(cut(particles.carry.theta), cut(particles.carry.state)), cut(particles.walk)


def _concatenated(trees: list[Tree]) -> Tree:
    return {name: torch.cat([tree[name] for tree in trees]) for name in trees[0]}


def _result(loss: Tensor, aux: Tree, found: list[Tree]) -> MetaGradient:
    """Return the mean of the pairs' estimates and its standard error."""
    estimates = _concatenated(found)
    mean = {name: leaf.mean(0) for name, leaf in estimates.items()}
    variances = [leaf.var(0).sum() / len(leaf) for leaf in estimates.values()]
    return MetaGradient(loss, mean, aux, {"standard_error": torch.stack(variances).sum().sqrt()})
