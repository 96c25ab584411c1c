"""Scaled targets: what a user sees is in the user's units, whatever the model learns."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from rbml.data import inputs
from rbml.data.batch import Batch
from rbml.data.setting import Setting
from rbml.data.targets import CLASSES, REAL, Units, real
from rbml.data.targets.real import coverage
from rbml.errors import CheckpointError, UsageError
from rbml.tasks import generator

OFFSET, SCALE = [30.0, -2.0], [10.0, 0.5]
target = real(OFFSET, SCALE)
y = torch.randn(7, 2, generator=generator(1), dtype=torch.float64) * torch.tensor(SCALE) + torch.tensor(OFFSET)
guess = y + torch.randn(7, 2, generator=generator(2), dtype=torch.float64)


def test_metrics_are_those_of_the_users_units() -> None:
    scaled = Batch(torch.zeros(7, 1), target.scaled(y), {"example": torch.arange(7) < 5})
    plain = scaled._replace(y=y)
    for ours, theirs in zip(target.metrics, REAL.metrics, strict=True):
        assert ours.of(target.scaled(guess), scaled) == pytest.approx(float(theirs.of(guess, plain)), rel=1e-12)


def test_the_loss_is_that_of_what_is_learned() -> None:
    apart = (guess - y) / torch.tensor(SCALE, dtype=torch.float64)
    assert torch.allclose(target.loss(target.scaled(guess), target.scaled(y)), (apart**2).mean())


def test_intervals_are_those_of_the_users_units() -> None:
    """A normal distribution that is shifted and stretched: its deviation is stretched, and what it covers stays."""
    deviation = torch.rand(7, 2, generator=generator(3), dtype=torch.float64) + 0.5
    sure = torch.cat([guess, 2 * deviation.log()], 1)
    learned = torch.cat([target.scaled(guess), 2 * (deviation / torch.tensor(SCALE)).log()], 1)
    torch.testing.assert_close(target.unscaled(learned), sure, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(target.decode(learned, ["a", "b"]), REAL.decode(sure, ["a", "b"]), strict=True):
        assert ours == pytest.approx(theirs)
    inside = coverage(learned, Batch(torch.zeros(7, 1), target.scaled(y)))
    assert inside == coverage(sure, Batch(torch.zeros(7, 1), y))


def test_a_large_offset_does_not_eat_the_digits() -> None:
    years = real([1.7e9], [100.0])
    found, _ = years.read([1.7e9 + 1, 1.7e9 + 2])
    assert found.flatten().tolist() == pytest.approx([0.01, 0.02])


def test_units_are_fitted_to_training_targets() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    assert Units.fitted(values) == Units((2.0, 5.0), (1.0, 1.0))


def test_a_setting_keeps_them() -> None:
    saved = Setting(inputs.Arrays(), target, 2).to_json()
    assert saved["target_spec"] == {"offset": OFFSET, "scale": SCALE}
    assert torch.equal(Setting.from_json(saved).target.scaled(y), target.scaled(y))
    assert "target_spec" not in Setting(inputs.Arrays(), REAL, 2).to_json(), "as before there was any scale"
    with pytest.raises(CheckpointError, match="classes have no options"):
        Setting.from_json(saved | {"target": "classes"})
    with pytest.raises(UsageError, match="kind classes have no options, but there are offset"):
        CLASSES.with_spec({"offset": 1})


@pytest.mark.parametrize(
    ("offset", "scale", "message"),
    [([1.0], [1.0, 2.0], "each, not 1 and 2"), ([1.0], [0.0], "above zero"), ([float("nan")], [1.0], "finite")],
)
def test_what_fits_nothing_is_refused(offset: list[float], scale: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        real(offset, scale)


def test_another_number_of_targets_is_refused() -> None:
    with pytest.raises(
        UsageError, match=re.escape("2 targets, which need as many columns, not a tensor of the shape (7, 3)")
    ):
        target.scaled(torch.zeros(7, 3))
    with pytest.raises(UsageError, match="2 targets"):
        target.unscaled(torch.zeros(7, 3))
