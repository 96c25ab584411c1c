from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest

from rbml import data
from rbml.data.inputs import Pictures
from rbml.data.inputs.pictures import read
from rbml.errors import DataError

image = pytest.importorskip("PIL.Image")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A set of the same form, with two classes of train and one of test, two pictures each."""
    folder = tmp_path / "grocery_store"
    (folder / "splits").mkdir(parents=True)
    rows, rng = ["path,class"], np.random.default_rng(0)
    with ZipFile(folder / "grocery_store_84x84.zip", "w") as archive:
        for name in ("Kiwi", "Apple", "Lime"):
            for index in range(2):
                file = tmp_path / f"{name}{index}.png"
                image.fromarray(rng.integers(0, 256, (84, 84, 3), dtype=np.uint8)).save(file)
                archive.write(file, f"grocery_store_84x84/train/{name}/{index}.jpg")
                rows.append(f"train/{name}/{index}.jpg,{name}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    (folder / "splits" / "suggested.json").write_text(json.dumps({"train": ["Kiwi", "Apple"], "test": ["Lime"]}))
    return tmp_path


@pytest.mark.parametrize(("size", "channels"), [(84, 3), (20, 3), (84, 1)])
def test_pictures_are_those_that_a_file_of_ones_own_would_give(small: Path, size: int, channels: int) -> None:
    found = data.ALL["grocery"]("train", small, size=size, channels=channels)  # type: ignore[call-arg]
    assert found.names == ["Apple", "Kiwi"] and found.y.tolist() == [0, 0, 1, 1]
    assert found.x.shape == (4, channels, size, size) and found.modality == Pictures(size, channels)
    assert (found.x[2] == read(small / "Kiwi0.png", size, channels)).all()


def test_what_is_missing_is_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="for val"):
        data.ALL["grocery"]("val", small)
    (small / "grocery_store" / "images.csv").write_text("file,kind\na,b\n")
    with pytest.raises(DataError, match="needs the columns path and class"):
        data.ALL["grocery"]("train", small)
    (small / "grocery_store" / "images.csv").unlink()
    with pytest.raises(DataError, match=r"images\.csv.*rbml does not download it"):
        data.ALL["grocery"]("train", small)


def test_the_real_set(data_root: Path) -> None:
    sizes = {"val": (16, 888), "test": (17, 1406)}
    for part, expected in sizes.items():
        found = data.ALL["grocery"](part, data_root, size=8)  # type: ignore[call-arg]
        assert (found.classes, len(found.x)) == expected
