"""Attention without PyTorch's fused kernels, which have no second derivative of any kind."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rbml.operators.randomness import refuse


def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Return ``F.scaled_dot_product_attention`` of the same arguments, by the formula.

    Raises:
        UsageError: if it would draw random numbers for dropout.
    """
    if (args[1] if len(args) > 1 else kwargs.get("dropout_p", 0.0)) > 0:
        refuse("scaled_dot_product_attention(dropout_p=)")
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(query, key, value, *args, **kwargs)


def multi_head_attention_forward(*args: Any, training: bool = True, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """Return ``F.multi_head_attention_forward`` of the same arguments, by the formula.

    Raises:
        UsageError: if it would draw random numbers for dropout.
    """
    if training and (args[10] if len(args) > 10 else kwargs["dropout_p"]) > 0:
        refuse("multi_head_attention_forward(dropout_p=)")
    with sdpa_kernel(SDPBackend.MATH):
        found: tuple[Tensor, Tensor | None] = F.multi_head_attention_forward(*args, **kwargs | {"training": training})
        return found
