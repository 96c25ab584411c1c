"""Large products in a precision below that of their factors, where a command asks for it (``--precision bfloat16``).

Parameters, gradients, norms, losses and sums over tasks stay in float32; only the factors and results of products are
rounded. A result returns to float32 at once, so that nothing else in a model sees another type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.devices import type_of_products

PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
"""The operators whose factors may be rounded."""

WEIGHTS = 2**14
"""From how many weights on a product is rounded: below, the conversion costs as much as it saves."""

OUTPUTS = 128
"""From how many outputs on a linear layer is rounded: heads have fewer, and small differences of theirs count."""


def rounded(run: Callable[..., Tensor], linear: bool) -> Callable[..., Tensor]:
    """Return what does the same as one of :data:`PRODUCTS`, in the precision asked for where the product is large.

    Args:
        run: the operator, or what stands for it.
        linear: whether it is a linear layer.
    """
    dtype = type_of_products()

    def lower(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) else value

    def product(input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        few = weight.numel() < WEIGHTS or (linear and weight.shape[0] < OUTPUTS)
        if dtype is None or few or input.dtype != torch.float32 or weight.dtype != torch.float32:
            return run(input, weight, bias, *args, **kwargs)
        return run(lower(input), lower(weight), lower(bias), *args, **kwargs).float()

    return product
