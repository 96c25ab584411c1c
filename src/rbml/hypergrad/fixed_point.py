"""Fixed-point numbers that can be multiplied by a fraction and back without losing a bit (Maclaurin et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from rbml.errors import UsageError

FRACTION = 52
"""Binary digits after the point: values from -2048 to 2048 in steps of 2e-16, as in the code of the paper."""
DENOMINATOR = 2**16
"""The denominator of a decay that may change, as in the code of the paper."""
FULL = 47
"""Bits of the buffer that may be used before it is stored away: 2**47 * 2**16 still fits a signed 64-bit integer."""


def encode(values: Tensor) -> Tensor:
    """Return values in fixed point: the nearest whole multiples of 2**-52."""
    # Digits beyond the 52nd after the point are rounded here; every later operation is exact.
    return (values.to(torch.float64) * 2.0**FRACTION).round().to(torch.int64)


def decode(units: Tensor, like: Tensor) -> Tensor:
    """Return the values of fixed-point numbers, in the type of ``like``."""
    # Always contiguous: the memory layout selects the kernel and thus the rounding, which must be the same both ways.
    return (units.to(torch.float64) * 2.0**-FRACTION).to(like.dtype).contiguous()


def rescaled(units: Tensor, buffer: Tensor, up: Tensor | int, down: Tensor | int) -> tuple[Tensor, Tensor]:
    r"""Multiply by ``up / down`` and move the remainder into the buffer; the inverse swaps up and down.

    .. math:: (q, r) = divmod(c, down), \quad (i', s) = divmod(down \cdot i + r, up), \quad c' = up \cdot q + s

    Source: algorithm 3 of Maclaurin, Duvenaud, Adams 2015 (arXiv:1502.03492). The result is within ``up`` units of the
    exact product.

    Args:
        units: the numbers c.
        buffer: the information buffer i.
        up: the numerator.
        down: the denominator.

    Returns:
        The product c' and the buffer i'.

    >>> c, i = rescaled(torch.tensor(-1234), torch.tensor(5), 9, 10)
    >>> int(c), [int(x) for x in rescaled(c, i, 10, 9)]
    (-1114, [-1234, 5])
    """
    # The remainder of the division goes into the buffer; in exchange, the digits that the multiplication makes free
    # are filled from the buffer. Nothing is rounded, so the two steps can be reversed.
    quotient = units // down
    pushed = buffer * down + (units - quotient * down)
    kept = pushed // up
    return quotient * up + (pushed - kept * up), kept


def packed(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Return a full buffer in 48 bits: the lower 32 and the upper 16."""
    return buffer.to(torch.int32), (buffer >> 32).to(torch.int16)


def unpacked(low: Tensor, high: Tensor) -> Tensor:
    """Return the buffer; the inverse of :func:`packed`."""
    # The mask undoes the sign extension of the lower 32 bits.
    return (low.to(torch.int64) & 0xFFFFFFFF) | (high.to(torch.int64) << 32)


@dataclass(frozen=True)
class Decays:
    """The decays as fractions, and when the buffer is full, which is known before the run and does not depend on data.

    Attributes:
        fixed: the fraction, if the decay is a single fixed number.
        least: the smallest numerator.
        denominator: the common denominator.
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
        """Return the value of the nearest fraction, with the derivative of ``decay``."""
        nearest = self.numerator(decay.detach()) / torch.full_like(decay, self.denominator)
        return decay + (nearest.to(decay.dtype) - decay).detach()

    def spills(self, first: int, steps: int) -> frozenset[int]:
        """Return the steps before which the buffer must be stored away, assuming the smallest decay."""
        # `bound` follows the largest possible buffer: a step multiplies it by the denominator, adds a remainder, and
        # divides it by the numerator. The smallest numerator fills it fastest.
        found, bound = set(), 0
        for t in range(first, steps):
            bound = (bound * self.denominator + self.denominator - 1) // self.least
            if bound >= 2**FULL:
                found.add(t)
                bound = (self.denominator - 1) // self.least
        return frozenset(found)

    def bits(self, first: int, steps: int) -> float:
        """Return the bits of the buffer per value and step: 48 each time it was full, and the 64 in use at the end."""
        return (48 * len(self.spills(first, steps)) + 64) / max(steps - first, 1)


def decays(ratio: Fraction | None, span: tuple[float | None, float | None]) -> Decays:
    """Return the representation of decays as fractions.

    Args:
        ratio: the decay, if it is a single fixed number.
        span: the bounds of the decay otherwise.

    Raises:
        UsageError: if the decay may leave the interval from 0 to 1.
    """
    if ratio is not None:
        if not 0 < ratio <= 1:
            raise UsageError(f"exact=True needs a decay above 0 and at most 1, not {float(ratio)}: use exact=False")
        return Decays(ratio, ratio.numerator, ratio.denominator)
    low, high = span
    if low is None or high is None or low < 0 or high > 1:
        raise UsageError(
            f"exact=True needs decays that stay between 0 and 1, but these have the bounds {span}: set bounds, "
            "such as Hyper(0.9, bounds=(0.5, 1)); the lower bound determines the size of the buffer"
        )
    return Decays(None, max(1, int(low * DENOMINATOR)), DENOMINATOR)
