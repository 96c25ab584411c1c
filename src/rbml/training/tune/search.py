"""Change phi along its hypergradient: through whole runs, or through a window that moves along one run.

Both are generators: they yield phi after every change, and may be left at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch

from rbml.hypergrad import Unrolled
from rbml.inner import Carry, Inner
from rbml.training.tune.runs import Runs, window
from rbml.tree import Tree, detach, prefixed, under

How = Literal["auto", "whole", "online"]

STEEP = 10.0
"""A hypergradient so many times larger than usual is shortened: long runs have cliffs."""


class Change(NamedTuple):
    """One change of phi.

    Attributes:
        before: phi with which the runs were made.
        phi: phi after the change.
        loss: the validation loss with phi before the change, the mean of the runs.
        size: the norm of the hypergradient.
        finite: whether it could be used.
    """

    before: Tree
    phi: Tree
    loss: float
    size: float
    finite: bool


class Descent:
    """Adam on phi, whose gradients are shortened where they are much larger than usual.

    Args:
        phi: where it begins.
        lr: how far a number of phi (a logarithm, where it has a bound) moves in one change.
    """

    def __init__(self, phi: Tree, lr: float) -> None:
        """Begin without a memory."""
        self.leaves = {name: leaf.clone().requires_grad_(True) for name, leaf in phi.items()}
        self.optimizer = torch.optim.Adam(self.leaves.values(), lr=lr, betas=(0.8, 0.95))
        self.lr, self.usual, self.slower = lr, 0.0, 1.0

    def change(self, loss: torch.Tensor, grads: Tree) -> Change:
        """Move phi once; a gradient that is not finite leaves it, and makes later changes half as large."""
        before = {name: leaf.detach().clone() for name, leaf in self.leaves.items()}
        size = float(torch.stack([grad.double().norm() for grad in grads.values()]).norm())
        finite = bool(torch.isfinite(loss)) and size < float("inf")
        if not finite:
            self.slower *= 0.5
            self.pace(self.lr)
            return Change(before, before, float(loss), size, False)
        limit = STEEP * self.usual if self.usual else size
        factor = min(1.0, limit / size) if size else 1.0
        self.usual = 0.8 * self.usual + 0.2 * size * factor if self.usual else size
        for name, leaf in self.leaves.items():
            leaf.grad = grads[name] * factor
        self.optimizer.step()
        return Change(
            before, {name: leaf.detach().clone() for name, leaf in self.leaves.items()}, float(loss), size, True
        )

    def pace(self, lr: float) -> None:
        """Set how far a number moves, unless that was made smaller because of gradients that were not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * self.slower

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on later."""
        return {"leaves": detach(self.leaves), "optimizer": self.optimizer.state_dict(), "usual": self.usual}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        with torch.no_grad():
            for name, leaf in self.leaves.items():
                leaf.copy_(state["leaves"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.usual = state["usual"]


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
        losses, grads = runs.gradient(detach(descent.leaves), range(starts * round_, starts * (round_ + 1)))
        yield descent.change(losses.mean(), grads)
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
        yield descent.change(loss, grads)


def _kept(inner: Inner, carry: Carry, m: Tree) -> tuple[torch.Tensor, Tree]:
    """Return the outer loss, and the carry in place of what else there is."""
    loss, _ = inner.outer(carry, m)
    return loss, prefixed(carry.theta, "theta.") | prefixed(carry.state, "state.")
