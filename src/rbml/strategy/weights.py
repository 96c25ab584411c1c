"""Learned tensors of any shape, such as the weights of a small network inside a strategy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rbml.tree import Step, Tree


@dataclass(frozen=True)
class Weights:
    """Tensors that a part receives unchanged, unlike a :class:`Hyper`, which becomes one tensor per parameter of theta.

    Args:
        start: ``(theta, steps, generator) -> tree``: the initial tensors, for parameters like ``theta``. Random numbers
            come from the generator.
        learn: whether the tensors are meta-parameters or keep their initial values.
    """

    start: Callable[[Tree, int, torch.Generator | None], Tree]
    learn: bool = True

    def initial(self, theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
        """Return the leaves at their start, named ``"/name"``."""
        return {f"/{name}": leaf for name, leaf in self.start(theta, steps, generator).items()}

    def at(self, leaves: Tree, theta: Mapping[str, Tensor], t: Step) -> Tree:
        """Return the tensors, which are the same at every step."""
        return {name[1:]: leaf for name, leaf in leaves.items()}
