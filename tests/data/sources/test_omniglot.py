from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from rbml.data.sources import omniglot
from rbml.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")


@pytest.mark.parametrize(
    ("split", "part", "classes"),
    [
        ("vinyals", "train", 4112),
        ("vinyals", "val", 688),
        ("vinyals", "test", 1692),
        ("vinyals-1200", "train", 4800),
        ("lake", "train", 883),
        ("lake", "val", 81),
        ("lake", "test", 659),
        ("lake-within", "train", 853),
        ("lake-within", "val", 111),
        ("lake-within", "test", 659),
        ("antoniou", "train", 1150),
        ("antoniou", "val", 50),
        ("antoniou", "test", 423),
    ],
)
def test_splits_have_the_published_classes(data_root: Path, split: str, part: str, classes: int) -> None:
    data = omniglot.load(part, data_root, split=split)
    assert data.classes == classes == len(set(data.names))
    assert data.x.shape == (20 * classes, 1, 28, 28) and data.x.dtype == torch.uint8
    assert torch.equal(data.y, torch.arange(classes).repeat_interleave(20))
    assert split in data.about and part in data.about


@pytest.mark.parametrize("split", ["vinyals", "lake", "lake-within", "antoniou"])
def test_parts_share_no_class(data_root: Path, split: str) -> None:
    names = [omniglot.load(part, data_root, split=split).names for part in ("train", "val", "test")]
    assert len(set().union(*names)) == sum(map(len, names))


def test_vinyals_is_the_usual_split_and_1200_says_what_it_shares(data_root: Path) -> None:
    assert omniglot.load("val", data_root).names == omniglot.load("val", data_root, split="vinyals").names
    merged, val = (omniglot.load(part, data_root, split="vinyals-1200") for part in ("train", "val"))
    assert set(val.names) < set(merged.names)
    assert "val is a part of train" in val.about and "val is a part of train" in merged.about


def test_lake_validates_on_the_smallest_background_alphabets(data_root: Path) -> None:
    alphabets = {
        part: {name.split("/")[0] for name in omniglot.load(part, data_root, split="lake").names}
        for part in ("train", "val", "test")
    }
    assert [len(alphabets[part]) for part in ("train", "val", "test")] == [25, 5, 20]
    assert not alphabets["train"] & alphabets["val"]


def test_pictures_are_those_of_the_archive(data_root: Path) -> None:
    data = omniglot.load("train", data_root)
    angelic = data_root / "omniglot" / "images_evaluation.zip"
    for name, drawing in (
        ("Angelic/character01/rot000", 0),
        ("Angelic/character01/rot090", 19),
        ("Angelic/character03/rot270", 4),
    ):
        character, rotation = name.rsplit("/", 1)
        with zipfile.ZipFile(angelic) as archive:
            files = sorted(file for file in archive.namelist() if f"/{character}/" in file and file.endswith(".png"))
            picture = Image.open(io.BytesIO(archive.read(files[drawing])))
        truth = 255 - np.asarray(picture.convert("L").rotate(int(rotation[3:])), dtype=np.float32)  # counterclockwise
        small = interpolate(torch.from_numpy(truth)[None, None], size=(28, 28), mode="area")[0, 0]
        row = 20 * data.names.index(name) + drawing
        assert data.y[row] == data.names.index(name)
        assert torch.corrcoef(torch.stack([small.flatten(), data.x[row].float().flatten()]))[0, 1] > 0.9


def test_ink_is_bright_on_zero(data_root: Path) -> None:
    x = omniglot.load("val", data_root).x
    assert float((x == 0).float().mean()) > 0.7 and (x.flatten(1).amax(1) > 150).float().mean() > 0.99


def test_archives_may_lie_in_the_root_itself(data_root: Path, tmp_path: Path) -> None:
    for name in ("images_background.zip", "images_evaluation.zip", "splits"):
        (tmp_path / name).symlink_to(data_root / "omniglot" / name)
    assert omniglot.load("val", tmp_path).classes == 688


def test_a_root_without_omniglot(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        omniglot.load("train", tmp_path)
    assert all(part in str(caught.value) for part in ("omniglot/images_background.zip", str(tmp_path), "downloads it"))


def test_without_a_root_it_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match=r"brendenlake/omniglot/master/python/images_background.zip"):
        omniglot.load("train")  # the fixture refuses downloads


def test_archives_that_are_not_whole(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    for archive in ("background", "evaluation"):
        with zipfile.ZipFile(tmp_path / f"images_{archive}.zip", "w") as file:
            file.writestr(f"images_{archive}/Greek/character01/0001_01.png", b"")
    with pytest.raises(DataError, match="holds 1 drawings of 1 characters, where Omniglot has 964"):
        omniglot.load("train", tmp_path, split="lake")
    (tmp_path / "images_background.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"images_background.zip cannot be read.*get it again"):
        omniglot.load("train", tmp_path, split="lake")


def test_a_class_list_that_names_an_unknown_class(data_root: Path, tmp_path: Path) -> None:
    (tmp_path / "omniglot" / "splits" / "vinyals").mkdir(parents=True)
    for name in ("images_background.zip", "images_evaluation.zip"):
        (tmp_path / "omniglot" / name).symlink_to(data_root / "omniglot" / name)
    (tmp_path / "omniglot" / "splits" / "vinyals" / "val.txt").write_text("Klingon/character01/rot000\n")
    with pytest.raises(DataError, match="Klingon/character01/rot000"):
        omniglot.load("val", tmp_path)
    shutil.rmtree(tmp_path / "omniglot" / "splits")


def test_a_split_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'vinyals'"):
        omniglot.load("train", tmp_path, split="vinyal")
