"""Change phi along its hypergradient: through whole runs, or through a window that moves along one run.

Both are generators: they yield phi after every change, and may be left at any time.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rbml.hypergrad import Unrolled
from rbml.inner import Carry, Inner
from rbml.training.tune.runs import Runs, window
from rbml.tree import Tree, detach, prefixed, under

How = Literal["auto", "whole", "online"]

WORSE = 0.2
"""A loss so much above the least one, as a share of the first one, is no noise any more."""

REMEMBERED = 15
"""Of how many runs the size of the hypergradient is remembered: what is larger than their median is shortened to it."""


class Change(NamedTuple):
    """One change of phi.

    Attributes:
        before: phi with which the runs were made.
        phi: phi after the change.
        loss: the validation loss with phi before the change, the mean of the runs.
        size: the norm of the hypergradient, the median of the runs.
        finite: whether it could be used: if not, phi went back, and later changes are smaller.
    """

    before: Tree
    phi: Tree
    loss: float
    size: float
    finite: bool


class Descent:
    """Adam on phi, for which the hypergradient of every single run is shortened to the usual size.

    Long runs have cliffs, where the hypergradient of one run may be a hundred times as large as that of the next. It
    would then be the mean of all runs by itself, and Adam, which divides by the size, would hardly move for long. Where
    the loss became much worse, or a run diverged, phi goes back to where it was best, and moves half as far from there.

    Args:
        phi: where it begins.
        lr: how far a number of phi (a logarithm, where it has a bound) moves in one change.
    """

    def __init__(self, phi: Tree, lr: float) -> None:
        """Begin without a memory."""
        self.leaves = {name: leaf.clone().requires_grad_(True) for name, leaf in phi.items()}
        self.optimizer = torch.optim.Adam(self.leaves.values(), lr=lr, betas=(0.8, 0.95))
        self.lr, self.slower = lr, 1.0
        self.sizes: list[float] = []
        self.best, self.least, self.scale = detach(self.leaves), math.inf, math.inf

    def change(self, losses: Tensor, each: Tree) -> Change:
        """Move phi once, or go back.

        Args:
            losses: of the runs, ``(S,)``.
            each: the hypergradient of every run, ``(S, ...)``.
        """
        before = {name: leaf.detach().clone() for name, leaf in self.leaves.items()}
        sizes = torch.stack([grad.double().reshape(len(losses), -1).norm(dim=1) for grad in each.values()]).norm(dim=0)
        loss, size = float(losses.mean()), float(sizes.median())
        self.scale = abs(loss) if self.scale == math.inf else self.scale
        if not (loss <= self.least + WORSE * self.scale and bool(torch.isfinite(sizes).all())):
            self._back()
            return Change(before, detach(self.leaves), loss, size, False)
        if loss < self.least:
            self.least, self.best = loss, before
        self.sizes = [*self.sizes, *sizes.tolist()][-REMEMBERED:]
        usual = float(torch.tensor(self.sizes, dtype=torch.float64).median())
        factors = (usual / sizes.clamp(min=1e-300)).clamp(max=1)
        for name, leaf in self.leaves.items():
            leaf.grad = (each[name] * factors.view(-1, *[1] * leaf.dim()).to(leaf.dtype)).mean(0)
        self.optimizer.step()
        return Change(before, {name: leaf.detach().clone() for name, leaf in self.leaves.items()}, loss, size, True)

    def _back(self) -> None:
        self.slower *= 0.5
        self.pace(self.lr)
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(self.best[name])
                if leaf in self.optimizer.state:
                    self.optimizer.state[leaf]["exp_avg"].zero_()  # it led to where the loss is worse

    def pace(self, lr: float) -> None:
        """Set how far a number moves, unless that was made smaller because of gradients that were not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * self.slower

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on later."""
        numbers = torch.tensor([self.lr, self.slower, self.least, self.scale], dtype=torch.float64)
        optimizer = {str(place): leaves for place, leaves in self.optimizer.state_dict()["state"].items()}
        optimizer = copy.deepcopy(optimizer)  # the next change writes into it
        return {
            "leaves": detach(self.leaves),
            "best": self.best,
            "optimizer": optimizer,
            "numbers": numbers,
            "sizes": torch.tensor(self.sizes, dtype=torch.float64),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(state["leaves"][name])
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {int(place): leaves for place, leaves in state["optimizer"].items()}
        self.optimizer.load_state_dict(optimizer)
        self.best, self.sizes = state["best"], state["sizes"].tolist()
        self.lr, self.slower, self.least, self.scale = state["numbers"].tolist()
        self.pace(self.lr)


def whole(runs: Runs, descent: Descent, starts: int, first: int = 0) -> Iterator[Change]:
    """Change phi by the hypergradient through whole runs; every change sees other starts and other orders.

    Args:
        runs: the training runs.
        descent: how phi is changed.
        starts: how many runs each change sees.
        first: how many changes were made before.

    Yields:
        Every change.
    """
    round_ = first
    while True:
        losses, each = runs.gradients(detach(descent.leaves), range(starts * round_, starts * (round_ + 1)))
        yield descent.change(losses, each)
        round_ += 1


def online(runs: Runs, descent: Descent, seed: int, steps: int = 10) -> Iterator[Change]:
    r"""Change phi along one run, by the hypergradient through its last few steps, and go on with it.

    .. math:: \phi \leftarrow \phi - \eta\, \frac{d L_{val}(\theta_{t + w})}{d \phi}, \qquad t = 0, w, 2w, \ldots

    Cheap: one run costs about as much as four without derivatives. It looks only w steps ahead, which favours small
    rates (Wu et al. 2018, arXiv:1803.02021, "short-horizon bias").

    Args:
        runs: the training runs.
        descent: how phi is changed.
        seed: of the run.
        steps: w.

    Yields:
        Every change.
    """
    inner = runs.inner(seed)
    carry = inner.start(detach(descent.leaves))
    for at in range(0, inner.steps, steps):
        ahead = window(inner, carry, at, min(steps, inner.steps - at))
        loss, grads, last, _ = Unrolled()(replace(ahead, outer=partial(_kept, inner)), detach(descent.leaves))
        carry = Carry(detach(under(last, "theta.")), detach(under(last, "state.")))
        yield descent.change(loss[None], {name: grad[None] for name, grad in grads.items()})


def _kept(inner: Inner, carry: Carry, m: Tree) -> tuple[Tensor, Tree]:
    """Return the outer loss, and the carry in place of what else there is."""
    loss, _ = inner.outer(carry, m)
    return loss, prefixed(carry.theta, "theta.") | prefixed(carry.state, "state.")
