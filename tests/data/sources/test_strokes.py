from __future__ import annotations

import numpy as np
import pytest

from rbml.data.sources import strokes


@pytest.mark.parametrize("seed", range(30))
def test_a_character_fills_a_unit_box_and_its_drawings_stay_inside_the_picture(seed: int) -> None:
    character = strokes.invent(np.random.default_rng(seed))
    assert 1 <= len(character.points) <= 4
    assert character.points.shape[1:] == (strokes.SPANS + 1, 2)
    assert character.smooth.shape == character.points.shape[:2] and set(character.smooth.flat) <= {0.0, 1.0}
    assert np.abs(character.points).max() <= 0.5 + 1e-9
    drawn = strokes.draw(character, np.random.default_rng(seed), 20)
    assert drawn.shape == (20, len(character.points), strokes.SPANS * strokes.STEPS + 1, 2)
    assert drawn.min() >= 3 - 1e-9 and drawn.max() <= 25 + 1e-9


def test_no_two_drawings_are_alike() -> None:
    drawn = strokes.draw(strokes.invent(np.random.default_rng(0)), np.random.default_rng(0), 20)
    gaps = np.abs(drawn[:, None] - drawn[None]).max((2, 3, 4)) + 9 * np.eye(20)
    assert gaps.min() > 0.5  # pixels


def test_curves_pass_through_their_control_points() -> None:
    points = np.random.default_rng(0).random((2, 3, strokes.SPANS + 1, 2))
    for smooth in (np.zeros((3, strokes.SPANS + 1)), np.ones((3, strokes.SPANS + 1))):
        np.testing.assert_allclose(strokes._curves(points, smooth)[..., :: strokes.STEPS, :], points, atol=1e-12)


def test_a_curve_between_corners_is_straight() -> None:
    points = np.random.default_rng(0).random((1, 1, strokes.SPANS + 1, 2))
    middle = strokes._curves(points, np.zeros((1, strokes.SPANS + 1)))[0, 0, 1 :: strokes.STEPS]
    np.testing.assert_allclose(middle, (points[0, 0, 1:] + points[0, 0, :-1]) / 2)
