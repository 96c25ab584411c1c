"""Learned tensors of any shape, such as the weights of a small network that is part of a strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rbml.tree import Step, Tree


@dataclass(frozen=True)
class Weights:
    """Tensors that a part sees as they are, where a :class:`Hyper` has one number a parameter of theta.

    Args:
        start: ``(theta, steps, generator) -> tree``: the tensors at their start, for parameters like ``theta``. What is
            drawn at random is drawn from the generator.
        learn: whether they are meta-parameters or stay as they start.
    """

    start: Callable[[Tree, int, torch.Generator | None], Tree]
    learn: bool = True

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        """Return the leaves, named ``"/name"``."""
        return {f"/{name}": leaf for name, leaf in self.start(theta, steps, generator).items()}

    def at(self, leaves: Tree, theta: Mapping[str, Tensor], t: Step) -> Tree:
        """Return the tensors; they are the same at every step."""
        return {name[1:]: leaf for name, leaf in leaves.items()}
