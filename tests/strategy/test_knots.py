"""A curve through knots: the factor between them, and its derivative."""

import math

import pytest
import torch

from rbml.errors import UsageError
from rbml.strategy import StepInfo, knots


def factor(curve: list[float], t: object, steps: int) -> float:
    rule = knots(len(curve), shared=True)
    values = {"curve": {"all": torch.tensor(curve)}}
    direction, _ = rule.update({"w": torch.ones(2)}, {}, {}, values, StepInfo(t, steps))  # type: ignore[arg-type]
    return float(direction["w"][0])


def test_it_is_one_at_first_and_interpolates_the_logarithm() -> None:
    assert factor([0.0, 0.0, 0.0], 3, 8) == 1
    curve = [0.0, 2.0, -1.0]
    for t, expected in ((0, 0.0), (2, 1.0), (4, 2.0), (6, 0.5), (8, -1.0), (20, -1.0)):
        assert factor(curve, t, 8) == pytest.approx(math.exp(expected), rel=1e-6)
        assert factor(curve, torch.tensor(t), 8) == pytest.approx(math.exp(expected), rel=1e-6)


def test_every_tensor_may_have_its_own() -> None:
    theta = {"a": torch.ones(1), "b": torch.ones(1)}
    assert {name: tuple(leaf.shape) for name, leaf in knots(4).hypers["curve"].initial(theta, 9, None).items()} == {
        "/a": (4,),
        "/b": (4,),
    }
    with pytest.raises(UsageError, match="at least 2 knots, not 1"):
        knots(1)
