"""What the parts of a strategy see: the step; for terms the support set, for starts its features."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rbml.data.batch import masked_mean
from rbml.tree import Step, Tree, tmap


def each_loss(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, y: Tensor) -> Tensor:
    """Return the loss of every example by itself, ``(n,)``."""
    return torch.func.vmap(loss)(prediction[:, None], y[:, None])


def masked_loss(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, y: Tensor, mask: Tree) -> Tensor:
    """Return the loss of a batch; with a mask, the mean of the examples' own losses over those that count."""
    return masked_mean(each_loss(loss, prediction, y), mask) if "example" in mask else loss(prediction, y)


class StepInfo(NamedTuple):
    """The step at which a part acts.

    Attributes:
        t: the inner step, from 0; a tensor where one traced step serves all of them.
        steps: T, how many there are.
        key: an integer that differs from task to task, for :func:`rbml.strategy.normal`; ``None`` if nothing is drawn.
        arrivals: for every class the first step that sees it, -1 where none does, ``(C,)``; ``None`` if no part asks
            for it (:attr:`rbml.strategy.base.Rule.by_class`), or the targets are not classes.
    """

    t: Step
    steps: int = 1
    key: Tensor | None = None
    arrivals: Tensor | None = None

    @property
    def time(self) -> float | Tensor:
        """The step as a number to calculate with: a float, or a tensor in double precision."""
        return float(self.t) if isinstance(self.t, int) else self.t.double()

    def first(self, here: Tree, later: Tree) -> Tree:
        """Return one tree at step 0 and another at every later step."""
        if isinstance(self.t, int):
            return here if self.t == 0 else later
        started = self.t > 0
        return tmap(lambda a, b: torch.where(started, b, a), here, later)


class TermInputs(NamedTuple):
    """What a term sees.

    Attributes:
        theta: the adapted parameters now.
        theta0: the adapted parameters at their start.
        x: support examples ``(n, ...)``.
        y: their targets ``(n, ...)``.
        prediction: the model's prediction for them ``(n, ...)``.
        loss: the learner's loss, from (prediction, target) to a scalar.
        at: the step.
        mask: of the batch: ``"example"`` ``(n,)`` and ``"class"`` ``(C,)``, see :class:`rbml.data.batch.Batch`.
    """

    theta: Tree
    theta0: Tree
    x: Tensor
    y: Tensor
    prediction: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    at: StepInfo
    mask: Tree = {}  # noqa: RUF012  never written to

    def losses(self) -> Tensor:
        """Return the loss of every example by itself, ``(n,)``."""
        return each_loss(self.loss, self.prediction, self.y)

    def mean(self, each: Tensor) -> Tensor:
        """Return the mean of ``(n, ...)`` over the examples that count."""
        return masked_mean(each, self.mask)

    def over_classes(self, each: Tensor, dim: int = 1, mean: bool = False) -> Tensor:
        """Return the sum, or the mean, along the dimension of the classes, over those that the task has."""
        present = self.mask.get("class")
        if present is None:
            return each.mean(dim) if mean else each.sum(dim)
        shape = [1] * each.dim()
        shape[dim] = -1
        total = torch.where(present.reshape(shape), each, 0).sum(dim)
        return total / present.sum() if mean else total

    def objective(self) -> Tensor:
        """Return the support loss, a scalar."""
        return masked_loss(self.loss, self.prediction, self.y, self.mask)


class Features(NamedTuple):
    """What a start sees.

    Attributes:
        features: the inputs of the head for the support examples at theta0, ``(n, d)``.
        y: their labels ``(n,)``.
        ways: C, the number of classes; for real values, how many numbers a target has.
        mask: which examples count, ``(n,)``; ``None`` means all of them.
    """

    features: Tensor
    y: Tensor
    ways: int
    mask: Tensor | None = None
