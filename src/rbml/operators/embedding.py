r"""Embeddings whose forward derivative is that of their gradient.

PyTorch's backward of ``padding_idx`` leaves out the padding row, and of ``scale_grad_by_freq`` divides by how often an
index occurs; their forward derivatives know nothing of it, so that a Hessian product differs between the modes. Here
both are written with :math:`\mathrm{stop}`, which no derivative passes, and every mode gives the same:

.. math:: e_i = \begin{cases} \mathrm{stop}(W_{x_i}) & x_i = \mathrm{padding} \\ W_{x_i} & \mathrm{otherwise}\end{cases}

``EmbeddingBag`` has no second derivative under ``vmap``; its reductions are written out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rbml.errors import UsageError


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Return ``F.embedding`` of the same arguments; ``sparse``, which only says how a gradient is kept, is ignored.

    Raises:
        UsageError: for ``max_norm``, which changes the weights themselves in the middle of a pass.
    """
    if max_norm is not None:
        raise UsageError(
            f"an embedding with max_norm={max_norm} rewrites its weights whenever it is called, which is no function "
            "that can be differentiated: use max_norm=None, and F.normalize of the result to bound its norm"
        )
    found = F.embedding(input, weight)
    if scale_grad_by_freq:
        ids = input.flatten()
        times = weight.new_zeros(weight.shape[0]).index_add(0, ids, torch.ones_like(ids, dtype=weight.dtype))
        share = (1 / times.index_select(0, ids)).view(*input.shape, 1)
        found = found * share + (found * (1 - share)).detach()
    if padding_idx is None:
        return found
    is_padding = (input == padding_idx % weight.shape[0]).unsqueeze(-1)
    return torch.where(is_padding, found.detach(), found)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return ``F.embedding_bag`` of the same arguments: bags are rows of ``input``, or begin at ``offsets``.

    Raises:
        UsageError: for ``max_norm``, and for arguments that PyTorch refuses too.
    """
    if input.dtype.is_floating_point:  # the old order of arguments, which PyTorch still takes
        input, weight = weight, input
    if per_sample_weights is not None and (mode != "sum" or per_sample_weights.shape != input.shape):
        raise UsageError("per_sample_weights of an embedding bag need mode='sum' and the shape of the input")
    if mode not in ("sum", "mean", "max") or input.dim() not in (1, 2) or (input.dim() == 1) != (offsets is not None):
        raise UsageError(
            "an embedding bag needs mode 'sum', 'mean' or 'max', and an input (bags, length), or (n,) with offsets; "
            f"here {mode=}, input {tuple(input.shape)}, {'no ' if offsets is None else ''}offsets"
        )
    rows = embedding(input.flatten(), weight, None, max_norm, norm_type, scale_grad_by_freq)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.reshape(-1, 1)
    belongs = _belongs(input, offsets, include_last_offset)
    if padding_idx is not None:
        belongs = belongs & (input.flatten() != padding_idx % weight.shape[0])
    if mode == "max":
        inside = torch.where(belongs.unsqueeze(-1), rows, -math.inf).max(1).values  # the first of equal values
        return torch.where(belongs.any(1, keepdim=True), inside, 0)
    counts = belongs.to(weight.dtype)
    total = counts @ rows
    return total if mode == "sum" else total / counts.sum(1, keepdim=True).clamp(min=1)


def _belongs(input: Tensor, offsets: Tensor | None, last_is_end: bool) -> Tensor:
    """Return which of the n flattened indices are in which bag, ``(bags, n)``."""
    places = torch.arange(input.numel(), device=input.device)
    if offsets is None:
        bags, length = input.shape
        return places.div(max(length, 1), rounding_mode="floor") == torch.arange(bags, device=input.device)[:, None]
    begins = offsets[:-1] if last_is_end else offsets
    ends = torch.cat([begins[1:], offsets[-1:] if last_is_end else offsets.new_full((1,), input.numel())])
    return (places >= begins[:, None]) & (places < ends[:, None])
