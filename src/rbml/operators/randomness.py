"""Refuse random numbers that a model or a loss draws by itself: an engine evaluates a step more than once.

The second evaluation would draw other numbers, and the derivative would be that of another function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError


def refuse(name: str) -> NoReturn:
    """Raise the error for an operator ``name`` that draws random numbers.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        f"{name} draws random numbers inside the model or the loss. A hypergradient evaluates a step more than once "
        "and would see other numbers each time. Put that layer into evaluation mode before you give the model "
        "(model.eval(); batch norm follows statistics= in any case), and for dropout in the inner loop add "
        "rbml.strategy.dropout(rate) to the strategy"
    )


def _refused(name: str) -> Callable[..., NoReturn]:
    def run(*args: Any, **kwargs: Any) -> NoReturn:
        refuse(name)

    return run


def _dropout(function: Callable[..., Any], default: bool) -> Callable[..., Any]:
    """Return a dropout that is the identity when PyTorch's is, and raises when it is not."""

    def run(input: Tensor, p: float = 0.5, training: bool = default, inplace: bool = False) -> Tensor:
        if training and p > 0:
            refuse(f"{function.__name__}(p={p}, training=True)")
        return input

    return run


def _rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor:
    if training and lower != upper:
        refuse("rrelu(training=True)")
    return F.leaky_relu(input, (lower + upper) / 2)


def _fractional(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("_random_samples") is None and len(args) < 6:
            refuse("fractional_max_pool (without fixed samples)")
        return function(*args, **kwargs)

    return run


_FUNCTIONS = (
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli", "multinomial"),
    *("normal", "poisson", "binomial"),
)
_METHODS = (
    *("bernoulli", "multinomial", "uniform_", "normal_", "bernoulli_", "exponential_", "random_", "geometric_"),
    *("cauchy_", "log_normal_"),
)

RANDOM: Mapping[Callable[..., Any], Callable[..., Any]] = {
    **{getattr(torch, name): _refused(f"torch.{name}") for name in _FUNCTIONS},
    **{getattr(Tensor, name): _refused(f"Tensor.{name}") for name in _METHODS},
    **{
        getattr(F, name): _dropout(getattr(F, name), True) for name in ("dropout", *(f"dropout{d}d" for d in (1, 2, 3)))
    },
    **{getattr(F, name): _dropout(getattr(F, name), False) for name in ("alpha_dropout", "feature_alpha_dropout")},
    **{
        getattr(torch, name): _dropout(getattr(torch, name), True)
        for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    },
    F.rrelu: _rrelu,
    F.gumbel_softmax: _refused("gumbel_softmax"),
    **{
        function: _fractional(function)
        for name in ("fractional_max_pool2d", "fractional_max_pool3d")
        for function in (getattr(F, name), getattr(F, f"{name}_with_indices"))
    },
}
"""The operators that draw random numbers, with their replacements."""
