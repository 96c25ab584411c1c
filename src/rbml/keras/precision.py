"""Run Keras in another floating-point precision than its model was made for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class Precision(TorchFunctionMode):
    """A context in which every request for a floating-point type becomes a request for ``dtype``.

    Every Keras layer casts its inputs and its variables to the type in its configuration, and the operators of Keras
    compute float64 as float32 on PyTorch. Both happen by ordinary PyTorch calls with a type as an argument.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """Remember the type."""
        super().__init__()
        self._dtype = dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with :attr:`dtype` in the place of every other floating-point type."""
        if func is Tensor.float:
            return args[0].to(self._dtype)
        given = {name: self._own(value) for name, value in (kwargs or {}).items()}
        return func(*(self._own(value) for value in args), **given)

    def _own(self, value: Any) -> Any:
        return self._dtype if isinstance(value, torch.dtype) and value in _FLOATS else value


def precision(dtype: torch.dtype, own: torch.dtype) -> AbstractContextManager[Any]:
    """Return the context in which a Keras model of type ``own`` computes with parameters of type ``dtype``.

    Args:
        dtype: the type of the parameters.
        own: the type of the model's variables.
    """
    # Keras alone would compute in float32 even if the model's own type is float64.
    return nullcontext() if dtype == own and dtype != torch.float64 else Precision(dtype)
