"""Random numbers as a pure function of a key: the same key always gives the same numbers."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from rbml.tree import Step

_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)  # splitmix64's, as signed numbers
_GOLDEN = -7046029254386353131
_DIGITS = {torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
"""How many bits are drawn: one fewer than the type holds, so that no number is rounded to 1."""

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def uniform(key: Tensor, name: str, like: Tensor) -> Tensor:
    """Return numbers between 0 and 1 (both excluded) of the shape and type of ``like``.

    The bits of splitmix64 (Steele et al. 2014) for a counter: they depend on the key, the name and the place in the
    tensor, and on nothing else, so that neither chunks nor replays nor resumed runs change them. Plain arithmetic on
    tensors: it works under ``vmap`` over keys and in a traced graph.

    Args:
        key: an int64 scalar.
        name: what the numbers are for: another name gives other numbers.
        like: a tensor of the wanted shape, type and device.
    """
    place = torch.arange(like.numel(), device=like.device).reshape(like.shape)
    stream = _mixed(key + _signed(zlib.crc32(name.encode()) * _GOLDEN))
    bits = _mixed((stream + place) * _GOLDEN)  # a product of the place alone is wrong where PyTorch compiles it
    digits = _DIGITS.get(like.dtype, 52)
    top = (bits >> (64 - digits)) & ((1 << digits) - 1)
    return (top.to(like.dtype) + 0.5) / (1 << digits)  # exact: the type holds one bit more


def normal(key: Tensor, name: str, like: Tensor) -> Tensor:
    """Return standard normal numbers, as :func:`uniform` (by Box and Muller 1958)."""
    wide = like.float() if like.dtype in (torch.float16, torch.bfloat16) else like  # few bits reach no tails
    radius = torch.sqrt(-2 * torch.log(uniform(key, f"{name}|radius", wide)))
    return (radius * torch.cos(2 * math.pi * uniform(key, f"{name}|angle", wide))).to(like.dtype)


def digest(tree: Mapping[str, Tensor], seed: int = 0) -> Tensor:
    """Return a key made from the bits of all leaves: other values give another key. Not cryptographic.

    Args:
        tree: what the key depends on, to the last bit.
        seed: the same values with another seed give another key.
    """
    total = torch.tensor(_signed(seed * _GOLDEN))
    for name, leaf in tree.items():
        bits = leaf.detach().contiguous().view(_BITS[leaf.element_size()]).to(torch.int64)
        place = torch.arange(leaf.numel(), device=leaf.device).reshape(leaf.shape) + zlib.crc32(name.encode())
        total = total.to(leaf.device) + _mixed(_mixed(bits) + place).sum()
    return _mixed(total)


def fold(key: Tensor, number: Step) -> Tensor:
    """Return a key for one step or one epoch: another number gives another key; ``number`` may be a tensor."""
    return _mixed(key + (_signed(number * _GOLDEN) if isinstance(number, int) else number * _GOLDEN))


def split(key: Tensor, count: int) -> Tensor:
    """Return ``count`` keys that are independent of one another and of ``key``, ``(count,)``."""
    return _mixed((_mixed(key) + torch.arange(count, device=key.device)) * _GOLDEN)


def _mixed(bits: Tensor) -> Tensor:
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        bits = (bits ^ _shifted(bits, shift)) * multiplier
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros, as unsigned numbers do."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
