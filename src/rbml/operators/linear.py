"""Bilinear maps and weight norm, written out: PyTorch's have no rule for ``vmap``, or no forward derivative."""

from __future__ import annotations

import torch
from torch import Tensor


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Return ``F.bilinear`` of the same arguments: :math:`y_o = x_1^T W_o x_2 + b_o`."""
    found = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return found if bias is None else found + bias


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    r"""Return ``torch._weight_norm`` of the same arguments: :math:`g v / \|v\|`, a norm per index of ``dim``.

    Args:
        v: the direction.
        g: the lengths, of the shape of v with one in all places but ``dim``.
        dim: the axis; -1 takes one norm for all.
    """
    others = [axis for axis in range(v.dim()) if dim == -1 or axis != dim]
    return v * (g / v.square().sum(others, keepdim=True).sqrt())
