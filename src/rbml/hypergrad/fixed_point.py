"""Whole numbers that can be multiplied by a fraction and back without losing a bit (Maclaurin et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from rbml.errors import UsageError

FRACTION = 52
"""Binary digits after the point: values from -2048 to 2048 in steps of 2e-16, as in the authors' code."""
DENOMINATOR = 2**16
"""What a decay that may change is a fraction of, as in the authors' code."""
FULL = 47
"""Bits of the buffer that are used before it is put aside: 2**47 * 2**16 still fits 64 bits with a sign."""


def encode(values: Tensor) -> Tensor:
    """Return the nearest whole numbers of units."""
    return (values.to(torch.float64) * 2.0**FRACTION).round().to(torch.int64)


def decode(units: Tensor, like: Tensor) -> Tensor:
    """Return the values, in the type of ``like``, in one layout: layouts decide how products are rounded."""
    return (units.to(torch.float64) * 2.0**-FRACTION).to(like.dtype).contiguous()


def rescaled(units: Tensor, buffer: Tensor, up: Tensor | int, down: Tensor | int) -> tuple[Tensor, Tensor]:
    r"""Multiply by ``up / down``, and move what is lost into the buffer: the inverse swaps up and down.

    .. math:: (q, r) = divmod(c, down), \quad (i', s) = divmod(down \cdot i + r, up), \quad c' = up \cdot q + s

    Algorithm 3 of Maclaurin, Duvenaud, Adams 2015 (arXiv:1502.03492). The result is within ``up`` units of the product.

    >>> c, i = rescaled(torch.tensor(-1234), torch.tensor(5), 9, 10)
    >>> int(c), [int(x) for x in rescaled(c, i, 10, 9)]
    (-1114, [-1234, 5])
    """
    quotient = units // down
    pushed = buffer * down + (units - quotient * down)
    kept = pushed // up
    return quotient * up + (pushed - kept * up), kept


def packed(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Return a full buffer in 48 bits: its lower 32 and its upper 16."""
    return buffer.to(torch.int32), (buffer >> 32).to(torch.int16)


def unpacked(low: Tensor, high: Tensor) -> Tensor:
    """Return the buffer: the inverse of :func:`packed`."""
    return (low.to(torch.int64) & 0xFFFFFFFF) | (high.to(torch.int64) << 32)


@dataclass(frozen=True)
class Decays:
    """How decays are written as fractions, and when the buffer is full: known before the run, whatever the data.

    Attributes:
        fixed: the fraction, where it is one fixed number.
        least: the least numerator.
        denominator: of all of them.
    """

    fixed: Fraction | None
    least: int
    denominator: int

    def numerator(self, decay: Tensor) -> Tensor | int:
        """Return the numerator of the nearest fraction."""
        if self.fixed is not None:
            return self.least
        nearest = (decay.to(torch.float64) * self.denominator).round()
        return nearest.clamp(self.least, self.denominator).to(torch.int64)

    def value(self, decay: Tensor) -> Tensor:
        """Return the fraction itself, with the derivative of ``decay``."""
        nearest = self.numerator(decay.detach()) / torch.full_like(decay, self.denominator)
        return decay + (nearest.to(decay.dtype) - decay).detach()

    def spills(self, first: int, steps: int) -> frozenset[int]:
        """Return before which steps the buffer must be put aside, at the least decay."""
        found, bound = set(), 0
        for t in range(first, steps):
            bound = (bound * self.denominator + self.denominator - 1) // self.least
            if bound >= 2**FULL:
                found.add(t)
                bound = (self.denominator - 1) // self.least
        return frozenset(found)

    def bits(self, first: int, steps: int) -> float:
        """Return how many bits a value and step the buffer takes: 48 for each time it was full, and the open 64."""
        return (48 * len(self.spills(first, steps)) + 64) / max(steps - first, 1)


def decays(ratio: Fraction | None, span: tuple[float | None, float | None]) -> Decays:
    """Return how to write decays that are ``ratio``, or lie in ``span``.

    Raises:
        UsageError: if they may leave the interval from 0 to 1.
    """
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise UsageError(f"exact=True can undo a decay above 0 and up to 1, not {float(ratio)}: use exact=False")
        return Decays(ratio, ratio.numerator, ratio.denominator)
    low, high = span
    if low is None or high is None or low < 0 or high > 1:
        raise UsageError(
            f"exact=True needs decays that stay between 0 and 1, and these have the bounds {span}: give them, "
            "such as Hyper(0.9, bounds=(0.5, 1)); the lower one sets the size of the buffer"
        )
    return Decays(None, max(1, int(low * DENOMINATOR)), DENOMINATOR)
