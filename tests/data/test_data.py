from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rbml import data
from rbml.errors import UsageError


@pytest.mark.parametrize("name", sorted(data.ALL))
def test_every_source_describes_itself_in_one_line(name: str) -> None:
    first = (data.ALL[name].__doc__ or "").splitlines()[0]
    assert 20 <= len(first) <= 90 and first.endswith(".")


@pytest.mark.parametrize("name", sorted(data.ALL))
def test_every_source_refuses_unknown_parts_and_splits(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no part named 'tset': did you mean 'test'"):
        data.ALL[name]("tset", tmp_path)
    with pytest.raises(UsageError, match="no split named 'nonsense'"):
        data.ALL[name]("test", tmp_path, split="nonsense")


def test_load_looks_the_name_up() -> None:
    assert data.load("glyphs", "val", seed=3).about.startswith("glyphs of seed 3")
    with pytest.raises(UsageError, match="did you mean 'omniglot'"):
        data.load("omnigot", "train")
    with pytest.raises(UsageError, match="can be set for a folder of pictures only"):
        data.load("glyphs", "val", size=84)


def test_load_reads_a_folder_by_its_path(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for part, name in (("train", "a"), ("test", "b")):
        (tmp_path / part / name).mkdir(parents=True)
        image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / part / name / "0.png")
    assert data.load(f"folder:{tmp_path}", "test").x.shape == (1, 1, 28, 28)
    assert data.load(f"folder:{tmp_path}", "train", size=6, channels=3).x.shape == (1, 3, 6, 6)
    assert data.load("folder", "train", tmp_path).names == ["a"]
