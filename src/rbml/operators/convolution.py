r"""Convolution as one product of matrices, for traced steps.

.. math:: y = P(x)\, W, \qquad P^T = \text{overlap}

P copies every window of a picture into a row, and its transpose adds rows back to where they came from. Both are
linear and each is the other's derivative, so that every order of derivative is made of these two and of products.
Vectorised over tasks whose weights differ, a convolution becomes a grouped one, which runs at a fraction of the speed
of a product on a CPU, and its derivatives are taken apart and gathered again (docs/facts.md, Speed).

The copies cost more than they save operator by operator, so that only traced steps use this
(:mod:`rbml.autodiff.compiled`): there each of the two is one node, and windows that a derivative needs again are kept.

Shapes: n pictures, c channels, o filters, windows of kh times kw, h' times w' places of the window.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack
from torch.autograd import Function
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from rbml.operators.alone import is_alone

Saved = Any
"""The context of a :class:`torch.autograd.Function`."""


def is_traced() -> bool:
    """Return whether the operators that are called now are being recorded for several tasks at once.

    Not where a :class:`torch.autograd.Function` cannot be used: ``functionalize``, under which graphs for the compiler
    are recorded, refuses it, and in a forward derivative of a forward derivative it is silently wrong
    (pytorch/pytorch#197867).
    """
    if get_proxy_mode() is None or is_alone():
        return False
    levels = [level.key() for level in get_interpreter_stack() or ()]
    return TransformType.Functionalize not in levels and levels.count(TransformType.Jvp) < 2


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Return ``F.conv2d`` of the same arguments; ``input`` is ``(n, c, h, w)``, ``weight`` ``(o, c, kh, kw)``."""
    plain = groups == 1 and _pair(dilation) == (1, 1) and not isinstance(padding, str) and input.dim() == 4
    if not plain or not is_traced() or weight.shape[1] != input.shape[1]:
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    kernel, step, edge = tuple(weight.shape[2:]), _pair(stride), _pair(padding)
    rows: Tensor = _Patches.apply(input.permute(0, 2, 3, 1), (*kernel, *step, *edge))  # type: ignore[no-untyped-call]
    n, height, width, size = rows.shape
    product = rows.reshape(n * height * width, size) @ weight.permute(2, 3, 1, 0).reshape(size, -1)
    product = product if bias is None else product + bias
    return product.view(n, height, width, -1).permute(0, 3, 1, 2)


@torch.library.custom_op("rbml::patches", mutates_args=())
def patches(x: Tensor, window: list[int]) -> Tensor:
    """Return every window of ``x`` as a row.

    Args:
        x: ``(..., h, w, c)``.
        window: kh, kw, the strides in both directions, and the widths of the margins of zeros.

    Returns:
        ``(..., h', w', kh * kw * c)``.
    """
    kh, kw, down, right, above, beside = window
    x = F.pad(x, (0, 0, beside, beside, above, above)) if above or beside else x.contiguous()
    *others, height, width, c = x.shape
    *steps, row, column, one = x.stride()
    shape = (*others, (height - kh) // down + 1, (width - kw) // right + 1)
    windows = x.as_strided((*shape, kh, kw, c), (*steps, row * down, column * right, row, column, one))
    return windows.clone(memory_format=torch.contiguous_format).view(*shape, kh * kw * c)


@patches.register_fake
def _(x: Tensor, window: list[int]) -> Tensor:
    kh, kw, down, right, above, beside = window
    height, width = (x.shape[-3] + 2 * above - kh) // down + 1, (x.shape[-2] + 2 * beside - kw) // right + 1
    return x.new_empty(*x.shape[:-3], height, width, kh * kw * x.shape[-1])


@torch.library.custom_op("rbml::overlap", mutates_args=())
def overlap(rows: Tensor, window: list[int], height: int, width: int) -> Tensor:
    """Add rows to the windows that they belong to: the transpose of :func:`patches`.

    Args:
        rows: ``(..., h', w', kh * kw * c)``.
        window: as in :func:`patches`.
        height: of the pictures.
        width: of the pictures.

    Returns:
        ``(..., height, width, c)``.
    """
    kh, kw, down, right, above, beside = window
    *others, high, wide, size = rows.shape
    parts = rows.reshape(*others, high, wide, kh, kw, size // (kh * kw))
    whole = rows.new_zeros(*others, height + 2 * above, width + 2 * beside, parts.shape[-1])
    for i in range(kh):
        for j in range(kw):
            place = whole[..., i : i + down * (high - 1) + 1 : down, j : j + right * (wide - 1) + 1 : right, :]
            place += parts[..., i, j, :]
    return whole[..., above : above + height, beside : beside + width, :].contiguous()


@overlap.register_fake
def _(rows: Tensor, window: list[int], height: int, width: int) -> Tensor:
    return rows.new_empty(*rows.shape[:-3], height, width, rows.shape[-1] // (window[0] * window[1]))


class _Patches(Function):
    """:func:`patches` with its derivatives."""

    @staticmethod
    def forward(x: Tensor, window: tuple[int, ...]) -> Tensor:
        found: Tensor = patches(x, list(window))
        return found

    @staticmethod
    def setup_context(ctx: Saved, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.window = inputs
        ctx.size = x.shape[-3], x.shape[-2]

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], x: Tensor, window: tuple[int, ...]) -> tuple[Tensor, int]:
        return _Patches.apply(x.movedim(dims[0], 0), window), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Saved, g: Tensor) -> tuple[Tensor, None]:
        return _Overlap.apply(g, ctx.window, *ctx.size), None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Saved, dx: Tensor, _: None) -> Tensor:
        found: Tensor = _Patches.apply(dx, ctx.window)  # type: ignore[no-untyped-call]
        return found


class _Overlap(Function):
    """:func:`overlap` with its derivatives."""

    @staticmethod
    def forward(rows: Tensor, window: tuple[int, ...], height: int, width: int) -> Tensor:
        found: Tensor = overlap(rows, list(window), height, width)
        return found

    @staticmethod
    def setup_context(ctx: Saved, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.window, *ctx.size = inputs[1:]

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], rows: Tensor, *others: Any) -> tuple[Tensor, int]:
        return _Overlap.apply(rows.movedim(dims[0], 0), *others), 0  # type: ignore[no-untyped-call]

    @staticmethod
    def backward(ctx: Saved, g: Tensor) -> tuple[Tensor, None, None, None]:
        return _Patches.apply(g, ctx.window), None, None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Saved, drows: Tensor, *_: None) -> Tensor:
        found: Tensor = _Overlap.apply(drows, ctx.window, *ctx.size)  # type: ignore[no-untyped-call]
        return found


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
