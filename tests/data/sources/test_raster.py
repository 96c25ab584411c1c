from __future__ import annotations

import math

import pytest
import torch

from rbml.data.sources import raster


def distance_to_piece(point: tuple[float, float], start: torch.Tensor, end: torch.Tensor) -> float:
    """The slow truth: project onto the piece, stop at its ends."""
    (px, py), (ax, ay), (bx, by) = point, start.tolist(), end.tolist()
    square = (bx - ax) ** 2 + (by - ay) ** 2
    t = 0.0 if square == 0 else max(0.0, min(1.0, ((px - ax) * (bx - ax) + (py - ay) * (by - ay)) / square))
    return math.hypot(px - ax - t * (bx - ax), py - ay - t * (by - ay))


def test_ink_is_the_distance_to_the_nearest_piece() -> None:
    curves = torch.rand(2, 2, 4, 2, generator=torch.Generator().manual_seed(0)) * 9
    curves[1, 0, 2] = curves[1, 0, 1]  # a piece of length zero
    radius, softness = torch.tensor([0.8, 1.5]), torch.tensor([1.0, 2.0])
    drawn = raster.ink(curves, radius, softness, size=9)
    assert drawn.shape == (2, 1, 9, 9) and drawn.dtype == torch.uint8
    for d in range(2):
        pieces = [(stroke[i], stroke[i + 1]) for stroke in curves[d] for i in range(3)]
        for y in range(9):
            for x in range(9):
                nearest = min(distance_to_piece((x + 0.5, y + 0.5), *piece) for piece in pieces)
                level = (float(radius[d]) + float(softness[d]) / 2 - nearest) / float(softness[d])
                assert float(drawn[d, 0, y, x]) == pytest.approx(255 * max(0.0, min(1.0, level)), abs=0.6)


def test_rows_are_y_and_columns_are_x() -> None:
    line = torch.tensor([[[[1.5, 6.5], [7.5, 6.5]]]])
    drawn = raster.ink(line, torch.tensor([0.5]), torch.tensor([0.5]), size=9)[0, 0]
    assert (drawn[6, 1:8] == 255).all() and int((drawn > 0).sum()) == 7


def test_a_drawing_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    curves = torch.rand(7, 3, 25, 2, generator=torch.Generator().manual_seed(1)) * 28
    radius, softness = torch.linspace(0.6, 2, 7), torch.linspace(0.8, 1.2, 7)
    whole = raster.ink(curves, radius, softness)
    for chunk in (1, 2**17, 2**30):
        monkeypatch.setattr(raster, "_CHUNK", chunk)
        assert torch.equal(raster.ink(curves, radius, softness), whole)
    assert torch.equal(raster.ink(curves[3:4], radius[3:4], softness[3:4]), whole[3:4])
