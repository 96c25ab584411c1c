"""Max pooling over windows that do not overlap, from maxima of strided views.

PyTorch's kernel looks at one value at a time on a CPU and finds out where each maximum is, for a derivative. Maxima and
comparisons of whole tensors are faster there (benchmarks/operators.py), for windows that do not overlap and large
tensors. Value and derivatives are PyTorch's: of equal values the first, row by row.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.operators.convolution import is_traced

LARGE = 2**17
"""The number of values per task from which this is faster than PyTorch's kernel."""

Size = Any
"""One integer, or one per dimension."""


def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Return ``F.max_pool2d`` of the same arguments; ``input`` is ``(channels, height, width)``, or n of these."""
    kernel = _pair(kernel_size)
    plain = _pair(stride or kernel_size) == kernel and _pair(padding) == (0, 0) and _pair(dilation) == (1, 1)
    fits = (
        input.dim() in {3, 4}
        and len(kernel) == 2
        and all(size >= k > 0 for size, k in zip(input.shape[-2:], kernel, strict=True))
    )
    known = input.device.type == "cpu" and input.dtype in {torch.float32, torch.float64}
    # Traced pictures have their channels last, and PyTorch's kernel asks for that, which vmap cannot answer.
    small = input.numel() < LARGE and not is_traced()
    if not (plain and fits and known) or ceil_mode or return_indices or small:
        native: Any = F.max_pool2d
        return native(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _pooled(input, *kernel)


def _pooled(x: Tensor, height: int, width: int) -> Tensor:
    """Pick the largest value of each window of the given height and width."""
    values = x.detach()
    largest = _strided(reduce(torch.maximum, _strided(values, -2, height)), -1, width)
    top = reduce(torch.maximum, largest)
    picked = x.flatten(-2).gather(-1, _where(values, top, height, width).flatten(-2)).reshape(top.shape)
    return torch.where(top == top, picked, top)  # a window with a NaN gives NaN, whatever the comparisons gave


def _where(x: Tensor, top: Tensor, height: int, width: int) -> Tensor:
    """Return the index of each window's largest value among all values of its picture, counted row by row."""
    rows, columns = x.shape[-2:]
    short = torch.int16 if rows * columns < 2**15 else torch.int32
    first = torch.arange(0, top.shape[-2] * height, height, dtype=short, device=x.device)[:, None] * columns
    place = first + torch.arange(0, top.shape[-1] * width, width, dtype=short, device=x.device)
    later: Tensor | None = None  # whether the largest value comes after those compared so far
    for row, part in enumerate(_strided(x, -2, height)):
        for column, value in enumerate(_strided(part, -1, width)):
            if (row, column) == (height - 1, width - 1):
                break
            later = value != top if later is None else later & (value != top)
            ahead = 1 if column < width - 1 else columns - width + 1
            place = place + later.to(short) * ahead
    return place.long()


def _strided(x: Tensor, axis: int, size: int) -> list[Tensor]:
    """Return the first, second ... value of each complete window along an axis."""
    whole = x.shape[axis] // size * size
    axis = x.dim() + axis
    every: list[slice] = [slice(None)] * x.dim()
    return [x[(*every[:axis], slice(at, whole, size), *every[axis + 1 :])] for at in range(size)]


def _pair(size: Size) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size) * (2 if len(size) == 1 else 1)
