from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import func

from rbml.errors import UsageError
from rbml.hypergrad.fixed_point import DENOMINATOR, FULL, decays, decode, encode, packed, rescaled, unpacked


@pytest.mark.parametrize("ratio", [(9, 10), (1, 65536), (65535, 65536), (58982, 65536), (1, 1)])
def test_every_bit_comes_back_after_many_multiplications(ratio: tuple[int, int]) -> None:
    """Sums that go on being multiplied and added to, as momentum does, and the buffer put aside when full."""
    up, down = ratio
    kept = decays(Fraction(up, down), (None, None)) if down == 10 else decays(None, (up / down, 1.0))
    steps = 200
    full = kept.spills(0, steps)
    units = torch.randint(-(2**60), 2**60, (50,))
    buffer = torch.zeros_like(units)
    begin, aside, trail = units.clone(), [], []
    for t in range(steps):
        if t in full:
            aside.append(packed(buffer))
            buffer = torch.zeros_like(buffer)
        trail.append(units)
        inflow = torch.randint(-(2**55), 2**55, (50,), generator=torch.Generator().manual_seed(t))
        units, buffer = rescaled(units, buffer, up, down)
        assert int(buffer.min()) >= 0 and int(buffer.max()) < 2**FULL
        units = units + inflow
    for t in reversed(range(steps)):
        inflow = torch.randint(-(2**55), 2**55, (50,), generator=torch.Generator().manual_seed(t))
        units, buffer = rescaled(units - inflow, buffer, down, up)
        if t in full:
            assert not buffer.any()
            buffer = unpacked(*aside.pop())
        assert torch.equal(units, trail[t])
    assert torch.equal(units, begin) and not buffer.any() and not aside


def test_the_product_is_right_to_the_numerator() -> None:
    units = torch.randint(-(2**60), 2**60, (1000,))
    found, _ = rescaled(units, torch.randint(0, 2**FULL, (1000,)), 58982, DENOMINATOR)
    truth = [Fraction(int(one)) * 58982 / DENOMINATOR for one in units]
    assert max(abs(int(one) - right) for one, right in zip(found, truth, strict=True)) < 58982


@pytest.mark.parametrize("decay", [0.5, 0.8, 0.9, 0.99])
def test_the_buffer_takes_little_more_than_the_information_that_is_lost(decay: float) -> None:
    """log2(1 / decay) a value and step, but for the 64 bits that are open, and words put by before they overflow."""
    steps = 10_000
    kept = decays(Fraction(decay).limit_denominator(DENOMINATOR), (None, None))
    lost = math.log2(1 / decay)
    assert lost <= kept.bits(0, steps) < 1.13 * lost + 64 / steps


def test_the_least_decay_of_a_learned_one_is_its_lower_bound() -> None:
    kept = decays(None, (0.8, 1.0))
    assert kept.least == int(0.8 * DENOMINATOR)
    assert kept.bits(0, 10_000) < 1.1 * math.log2(1 / 0.8) + 64 / 10_000
    numerators = kept.numerator(torch.tensor([0.7999, 0.8, 0.9, 0.99999999, 1.0]))
    assert numerators.tolist() == [kept.least, 52429, 58982, 65536, 65536]  # type: ignore[union-attr]


def test_the_value_of_a_decay_has_the_derivative_of_the_decay() -> None:
    kept = decays(None, (0.0, 1.0))
    raw = torch.tensor([0.1, 2.0], dtype=torch.float64)
    value = kept.value(torch.sigmoid(raw))
    assert torch.equal(value * DENOMINATOR, (value * DENOMINATOR).round())
    assert (value - torch.sigmoid(raw)).abs().max() <= 0.5 / DENOMINATOR
    found = func.grad(lambda r: kept.value(torch.sigmoid(r)).sum())(raw)
    assert torch.allclose(found, func.grad(lambda r: torch.sigmoid(r).sum())(raw), rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_below_two_in_size_survive_the_code(dtype: torch.dtype) -> None:
    values = 4 * torch.rand(1000, dtype=dtype) - 2
    again = decode(encode(values), values)
    assert (again - values).abs().max() <= 2.0**-53
    assert torch.equal(decode(encode(again), again), again)


@pytest.mark.parametrize("span", [(None, None), (None, 1.0), (0.5, None), (-0.1, 0.9), (0.5, 1.1)])
def test_decays_that_may_leave_the_interval_are_refused(span: tuple[float | None, float | None]) -> None:
    with pytest.raises(UsageError, match=r"stay between 0 and 1.*bounds=\(0.5, 1\)"):
        decays(None, span)


@pytest.mark.parametrize("ratio", [Fraction(0), Fraction(-1, 2), Fraction(11, 10)])
def test_a_fixed_decay_outside_the_interval_is_refused(ratio: Fraction) -> None:
    with pytest.raises(UsageError, match=f"not {float(ratio)}"):
        decays(ratio, (None, None))
