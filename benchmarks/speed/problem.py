"""What every contender computes: data as NumPy arrays, a network, and plain gradient descent as the inner loop.

Shapes: B tasks, S different batches of support examples (1: the same at every step), n examples, T inner steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Array = np.ndarray[Any, Any]


class Data(NamedTuple):
    """The tasks.

    Attributes:
        x: support inputs ``(B, S, n, ...)``; step t sees ``x[:, t % S]``.
        y: their targets ``(B, S, n)``, or ``(B, S, n, 1)`` for real values.
        qx: query inputs ``(B, q, ...)``.
        qy: their targets.
    """

    x: Array
    y: Array
    qx: Array
    qy: Array


@dataclass(frozen=True)
class Problem:
    """One row of the table.

    Attributes:
        about: what is computed, in words.
        network: makes the module; called once per contender, with PyTorch's generator at a fixed seed.
        data: the tasks.
        steps: T.
        rate: the inner learning rate, which the meta-gradient includes.
        form: the name of the network's function in ``jax_networks``; empty if there is none.
        ours: the tasks as rbml's own type, where that is not a stack of episodes.
        tolerance: how far, relative to its length, a single-precision gradient may be from the one in double precision.
    """

    about: str
    network: Callable[[], nn.Module]
    data: Data
    steps: int
    rate: float
    form: str = ""
    ours: Callable[[torch.dtype], Any] | None = None
    tolerance: float = 1e-3

    @property
    def regression(self) -> bool:
        """Whether the targets are real values."""
        return bool(self.data.y.dtype.kind == "f")

    def module(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Return the module, with the same parameters for everybody."""
        torch.manual_seed(0)
        return self.network().to(dtype)

    def tensors(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the data as tensors: real numbers of the given type, classes as they are."""
        leaves = [torch.from_numpy(leaf) for leaf in self.data]
        x, y, qx, qy = (leaf.to(dtype) if leaf.is_floating_point() else leaf for leaf in leaves)
        return x, y, qx, qy

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error, or the cross entropy."""
        return ((prediction - target) ** 2).mean() if self.regression else F.cross_entropy(prediction, target)


class Contender(NamedTuple):
    """Somebody who computes the meta-gradient.

    Attributes:
        module: the name of the file in ``contenders/``. Its ``make(problem, dtype, **options)`` returns a function that
            computes the meta-gradient by name: those of the module's parameters, and ``rate``; or it raises
            :class:`NotPossible`.
        options: of ``make``.
        peer: whether it is a library of others: the fastest of them has the ratio 1.
    """

    module: str
    options: dict[str, Any] = {}  # noqa: RUF012  never written to
    peer: bool = False


class NotPossible(Exception):
    """A contender cannot compute a problem; the message says why."""
