from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rbml.data.sources import quickdraw
from rbml.errors import DataError


def test_parts_are_those_of_the_published_split(data_root: Path) -> None:
    parts = {part: quickdraw.load(part, data_root) for part in ("train", "val", "test")}
    assert [parts[part].classes for part in ("train", "val", "test")] == [240, 52, 52]
    assert len({name for data in parts.values() for name in data.names}) == 344
    split = json.loads((data_root / "quickdraw" / "splits" / "learn2learn.json").read_text())
    assert set(parts["val"].names) == set(split["validation"])
    assert all(data.x.shape == (25 * data.classes, 1, 28, 28) for data in parts.values())


def test_pictures_have_their_labels(data_root: Path) -> None:
    data = quickdraw.load("test", data_root)
    with np.load(data_root / "quickdraw" / "quickdraw_344x25_28x28.npz") as file:
        images, labels, names = file["images"], file["labels"], file["class_names"].tolist()
    for label in (0, 17, 51):
        truth = images[labels == names.index(data.names[label])]
        assert torch.equal(data.x[data.y == label][:, 0], torch.from_numpy(truth))


def test_where_it_comes_from_is_said_when_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded.*googlecreativelab.*--data-root"):
        quickdraw.load("train", tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "quickdraw" / "splits").mkdir(parents=True)
    split = tmp_path / "quickdraw" / "splits" / "learn2learn.json"
    archive = tmp_path / "quickdraw" / "quickdraw_344x25_28x28.npz"
    archive.write_bytes(b"nothing")
    split.write_text("{")
    with pytest.raises(DataError, match=r"learn2learn\.json"):
        quickdraw.load("train", tmp_path)
    split.write_text(json.dumps({"train": ["cat"]}))
    with pytest.raises(DataError, match=r"28x28\.npz cannot be read"):
        quickdraw.load("train", tmp_path)
