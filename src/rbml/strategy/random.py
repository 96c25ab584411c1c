"""Random numbers as a pure function of a key: an engine that takes a step twice sees the same ones."""

from __future__ import annotations

import math
import zlib

import torch
from torch import Tensor

from rbml.strategy.base import Moment

_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)  # splitmix64's, as signed numbers
_GOLDEN = -7046029254386353131


def uniform(at: Moment, name: str, like: Tensor) -> Tensor:
    """Return numbers between 0 and 1 (both excluded) of the shape and type of ``like``.

    The bits of splitmix64 (Steele et al. 2014) for a counter: they depend on the task's key, the step, the name and the
    place in the tensor, and on nothing else, so that neither chunks nor replays nor resumed runs change them.

    Args:
        at: the moment; its key must be set.
        name: what they are for: other names get other numbers.
        like: the shape, type and device.
    """
    assert at.key is not None, "a part that draws random numbers says so: random=True"
    place = torch.arange(like.numel(), device=like.device).reshape(like.shape)
    stream = _mixed(at.key + _signed(zlib.crc32(f"{name}|{at.t}".encode()) * _GOLDEN))
    bits = _mixed(stream + (place + 1) * _GOLDEN)
    digits = 23 if like.dtype == torch.float32 else 11 if like.dtype in (torch.float16, torch.bfloat16) else 52
    top = (bits >> (64 - digits)) & ((1 << digits) - 1)
    return ((top.to(torch.float64) + 0.5) / (1 << digits)).to(like.dtype)


def normal(at: Moment, name: str, like: Tensor) -> Tensor:
    """Return standard normal numbers, as :func:`uniform` (by Box and Muller 1958)."""
    radius = torch.sqrt(-2 * torch.log(uniform(at, f"{name}|radius", like)))
    return radius * torch.cos(2 * math.pi * uniform(at, f"{name}|angle", like))


def _mixed(bits: Tensor) -> Tensor:
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        bits = (bits ^ _shifted(bits, shift)) * multiplier
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros, as unsigned numbers do."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


def _signed(number: int) -> int:
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
