from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rbml.data.inputs.colourful import colourful
from rbml.errors import DataError

image = pytest.importorskip("PIL.Image")


def save(path: Path, colour: tuple[int, int, int], count: int = 2) -> None:
    path.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 20, (count, 20, 20, 1))
    for index in range(count):
        image.fromarray((np.array(colour) + noise[index]).astype(np.uint8)).save(path / f"{index}.jpg")


def test_colour_is_found_where_most_pictures_have_it(tmp_path: Path) -> None:
    save(tmp_path / "red" / "train" / "apple", (200, 40, 30))
    save(tmp_path / "grey" / "bark", (90, 90, 90))
    (tmp_path / "red" / "notes.txt").write_text("no picture")
    assert colourful(tmp_path / "red") and not colourful(tmp_path / "grey")
    save(tmp_path / "grey" / "apple", (200, 40, 30), 1)
    assert not colourful(tmp_path / "grey"), "one of three"
    with pytest.raises(DataError, match="does not exist"):
        colourful(tmp_path / "gone")
