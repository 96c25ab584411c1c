"""What a case of the zoo is, and models around one layer, one loss or one habit.

A case is either right, equal to a plain double backward, or refused by an error that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N, WAYS, WIDTH = 6, 3, 4


class Net(nn.Module):
    """A model that is a function of itself and its inputs."""

    def __init__(self, forward: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self._forward = forward

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self._forward(self, *args, **kwargs)


def classes(n: int) -> Tensor:
    return torch.arange(n) % WAYS


def numbers(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape, dtype=torch.float64)


def ids(length: int = 3, kinds: int = 7) -> Callable[[int], Tensor]:
    return lambda n: torch.randint(kinds, (n, length))


features, triples = numbers(WIDTH), ids()


@dataclass(frozen=True)
class Case:
    """One habit.

    Attributes:
        model: makes the model; it is given in the mode in which it is made.
        x: makes n inputs.
        y: makes n targets.
        loss: of one task.
        error: what the error must say that refuses the case; empty if it must be right.
        warns: what a warning must say; empty if there must be none.
        options: of ``rbml.algorithms.maml``.
        instead: functions of PyTorch whose second derivative is missing or wrong, and formulas for the plain loop.
        ready: what is done to the model when it is made.
    """

    model: Callable[[], nn.Module]
    x: Callable[[int], Any] = features
    y: Callable[[int], Tensor] = classes
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    error: str = ""
    warns: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    instead: dict[Callable[..., Any], Callable[..., Any]] = field(default_factory=dict)
    ready: Callable[[nn.Module], Any] = lambda model: None


def layer(make: Callable[[], nn.Module], shape: tuple[int, ...] = (WIDTH,), **rest: Any) -> Case:
    """Return a case: a layer on inputs ``(n, *shape)``, then a tanh and a linear head on all that comes out."""

    def model() -> nn.Module:
        own = make()
        with torch.no_grad():
            width = own(torch.zeros(2, *shape)).flatten(1).shape[1]
        return nn.Sequential(own, nn.Tanh(), nn.Flatten(), nn.Linear(width, WAYS))

    return Case(model, numbers(*shape), **rest)


def on_features(make: Callable[[], nn.Module], **rest: Any) -> Case:
    """Return a case: a layer between two linear ones, so that its inputs depend on what is adapted."""
    return Case(lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), make(), nn.Linear(WIDTH, WAYS)), **rest)


def habit(forward: Callable[..., Tensor], x: Callable[[int], Any] = features, **rest: Any) -> Case:
    """Return a case: two linear layers, ``a`` and ``b``, and a function of them."""
    options = {key: rest.pop(key) for key in ("y", "loss", "error", "warns", "options", "ready") if key in rest}
    return Case(
        lambda: Net(forward, a=nn.Linear(WIDTH, WIDTH), b=nn.Linear(WIDTH, WAYS), **{k: v() for k, v in rest.items()}),
        x,
        **options,
    )


def loss(
    function: Callable[[Tensor, Tensor], Tensor], y: Callable[[int], Tensor] = classes, outputs: int = WAYS, **rest: Any
) -> Case:
    """Return a case: a loss of a small smooth network."""
    return Case(
        lambda: nn.Sequential(nn.Linear(WIDTH, 5), nn.Tanh(), nn.Linear(5, outputs)), y=y, loss=function, **rest
    )


def embedded(make: Callable[[], nn.Module], x: Callable[[int], Any] = triples, **rest: Any) -> Case:
    """Return a case: an embedding of seven kinds, and a head on the mean of what it finds."""
    return Case(
        lambda: Net(
            lambda own, x: own.head(torch.tanh(own.table(x)).flatten(1).unfold(1, WIDTH, WIDTH).sum(1)),
            table=make(),
            head=nn.Linear(WIDTH, WAYS),
        ),
        x,
        **rest,
    )


LINEAR: Callable[[], nn.Module] = lambda: nn.Linear(WIDTH, WIDTH)  # noqa: E731
