from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rbml.data.inputs import pictures
from rbml.data.sources import folder
from rbml.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")


def fill(root: Path, counts: dict[str, int]) -> Path:
    """Write ``counts[name]`` pictures a class, each of another brightness."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.zeros((12, 12), np.uint8)
            pixels[2 + index : 5 + index, 3:9] = 100 + 6 * label
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


def test_classes_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, {"b": 3, "a": 1, "C": 2})
    data = folder.read_classes(tmp_path, 12, 1)
    assert data.names == ["C", "a", "b"] and data.y.tolist() == [0, 0, 1, 2, 2, 2]
    assert data.x.shape == (6, 1, 12, 12) and data.x.dtype == torch.uint8
    assert torch.equal(data.x[4], pictures.read(tmp_path / "b" / "1.png", 12, 1))
    assert str(tmp_path) in data.about and "3 classes, 6 pictures" in data.about
    assert folder.read_classes(str(tmp_path), 6, 3).x.shape == (6, 3, 6, 6)


def test_hidden_files_and_files_beside_the_classes_are_skipped(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 1, "b": 1})
    for litter in (".DS_Store", "a/.hidden", "b/Thumbs.db", "README.txt"):
        (tmp_path / litter).write_text("not a picture")
    (tmp_path / ".git").mkdir()
    assert folder.read_classes(tmp_path).y.tolist() == [0, 1]


def test_files_that_are_not_pictures_are_all_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 1})
    for bad in ("a/broken", "b/broken.png"):
        (tmp_path / bad).write_text("not a picture")
    with pytest.raises(DataError, match=r"a/broken'.*b/broken\.png.*Remove"):
        folder.read_classes(tmp_path)


def test_notes_beside_pictures_are_skipped_but_a_class_needs_pictures(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    assert folder.read_classes(tmp_path).y.tolist() == [0, 0, 1]
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("not a picture")
    with pytest.raises(DataError, match=r"c' has no pictures, only 'notes\.txt'"):
        folder.read_classes(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "does not exist"),
        ([], "has no class folders"),
        (["a", "empty"], "class folder '.*empty' is empty"),
        (["a", "deep/inner"], "class folder '.*deep' holds the folder 'inner'"),
    ],
)
def test_another_layout_is_explained(tmp_path: Path, names: list[str] | None, message: str) -> None:
    root = tmp_path / "pictures"
    if names is not None:
        root.mkdir()
        fill(root, {name: 0 if name == "empty" else 1 for name in names})
    with pytest.raises(DataError, match=f"{message}.*Expected a folder of class folders"):
        folder.read_classes(root)


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not a folder"):
        folder.read_classes(tmp_path / "file")


def test_classes_are_divided_by_a_seeded_shuffle(tmp_path: Path) -> None:
    fill(tmp_path, {f"class {index:02d}": 1 for index in range(25)})
    parts = [folder.load(part, tmp_path, seed=1).names for part in ("train", "val", "test")]
    assert [len(names) for names in parts] == [16, 4, 5]
    assert sorted(name for names in parts for name in names) == [f"class {index:02d}" for index in range(25)]
    assert folder.load("test", tmp_path, seed=1).names == parts[2] == sorted(parts[2])
    assert folder.load("test", tmp_path, seed=2).names != parts[2]
    assert "seed 1" in folder.load("test", tmp_path, seed=1).about


def test_too_few_classes_to_divide(tmp_path: Path) -> None:
    fill(tmp_path, dict.fromkeys("abcd", 1))
    with pytest.raises(DataError, match="has 4 classes, but at least 5"):
        folder.load("train", tmp_path)
    fill(tmp_path, {"e": 1})
    assert [folder.load(part, tmp_path).classes for part in ("train", "val", "test")] == [3, 1, 1]


def test_a_division_of_its_own_is_used(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 1, "train/b": 1, "test/c": 2})
    assert folder.load("train", tmp_path).names == ["a", "b"]
    assert folder.load("test", tmp_path, size=6, channels=3).x.shape == (2, 3, 6, 6)
    with pytest.raises(DataError, match="divided into test, train, but has no 'val'"):
        folder.load("val", tmp_path)


def test_a_class_in_two_parts_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 1, "train/b": 1, "test/b": 1})
    with pytest.raises(DataError, match="class 'b'"):
        folder.load("train", tmp_path)


def test_a_class_that_is_called_train(tmp_path: Path) -> None:
    fill(tmp_path, dict.fromkeys(("train", "bus", "car", "bike", "boat"), 1))
    assert sum(folder.load(part, tmp_path).classes for part in ("train", "val", "test")) == 5
    fill(tmp_path / "just", {"train": 1})
    assert folder.read_classes(tmp_path / "just").names == ["train"]


def test_a_path_is_needed() -> None:
    with pytest.raises(UsageError, match="folder:PATH"):
        folder.load("train")


def pile(root: Path, count: int = 30) -> Path:
    """Write pictures into a folder, and some of them into one below it."""
    fill(root, {"old": 5})
    for index in range(count - 5):
        pixels = np.zeros((12, 12), np.uint8)
        pixels[1 + index // 5, 1 + index % 5] = 255
        Image.fromarray(pixels).save(root / f"{index}.png")
    (root / "notes.txt").write_text("not a picture")
    return root


def test_a_pile_of_pictures_needs_no_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pile(tmp_path)
    train, val = (folder.load(part, tmp_path, size=12, labelled=False) for part in ("train", "val"))
    assert len(train.x) == 20 and len(val.x) == 10 and train.classes == 1
    everything = torch.cat([train.x, val.x]).flatten(1)
    assert len(everything.unique(dim=0)) == 30 and "notes.txt" in caplog.text
    assert train.augment == ("affine", "elastic") and "20 pictures without labels" in train.about
    with pytest.raises(UsageError, match="on which nothing can be tested"):
        folder.load("test", tmp_path, labelled=False)
    with pytest.raises(DataError, match=r"has 1 classes.*--labels none"):
        folder.load("train", tmp_path)


def test_a_pile_can_be_too_small_or_be_folders_of_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 8 pictures, but at least 20"):
        folder.load("train", pile(tmp_path / "few", 8), labelled=False)
    with pytest.raises(DataError, match=r"has no class folders.*--labels none"):
        folder.load("train", tmp_path / "few" / "old")
    fill(tmp_path / "classes", {f"class {index}": 2 for index in range(10)})
    unused, used = (folder.load("train", tmp_path / "classes", labelled=one) for one in (False, True))
    assert unused.names == used.names and torch.equal(unused.x, used.x)


def test_a_large_folder_is_read_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folder.mapped, "FROM", 5)
    root = fill(tmp_path / "photos", {"a": 3, "b": 3})
    first = folder.read_classes(root, 12, 1)
    assert torch.equal(first.x, torch.stack([pictures.read(path, 12, 1) for path in sorted(root.glob("*/*"))]))
    monkeypatch.setattr(folder.Pictures, "read", lambda *_: pytest.fail("read again"))
    assert torch.equal(folder.read_classes(root, 12, 1).x, first.x)
    monkeypatch.undo()
    monkeypatch.setenv("RBML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folder.mapped, "FROM", 5)
    Image.fromarray(np.full((12, 12), 9, np.uint8)).save(root / "a" / "0.png")
    assert not torch.equal(folder.read_classes(root, 12, 1).x, first.x)
