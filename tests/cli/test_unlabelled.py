"""``rbml train --labels none`` on a pile of pictures, and labels where they first appear: in ``rbml adapt``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def pile(pictures: Path, tmp_path: Path) -> Path:
    """All pictures of the classes in one folder."""
    found = tmp_path / "pile"
    found.mkdir()
    for path in pictures.rglob("*.*"):
        (found / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    return found


def test_a_pile_of_pictures_is_enough_to_train_on(
    pile: Path, pictures: Path, rbml: Callable, fails: Callable, tiny: list[str], tmp_path: Path
) -> None:
    result = rbml("train", f"folder:{pile}", "--labels", "none", *tiny, "--augment", "shift", "--run", "unlabelled")
    assert result.code == 0, result.err
    assert "pictures without labels, queries changed by shift" in result.out
    assert "validation tasks are made without labels as well" in result.out
    adapted = rbml("adapt", "unlabelled", "--support", pictures, "--out", tmp_path / "own.rbml")
    assert adapted.code == 0 and "Learned 18 classes" in adapted.out
    assert rbml("evaluate", "unlabelled", "--tasks", f"folder:{pictures}", "--episodes", "3").code == 0
    assert "on which nothing can be tested" in fails(2, "evaluate", "unlabelled", "--episodes", "3")
    assert "--labels none" in fails(1, "train", f"folder:{pile}", *tiny)


def test_words_that_cannot_be(fails: Callable, pictures: Path) -> None:
    line = fails(2, "train", f"folder:{pictures}", "--labels", "none", "--augment", "flop")
    assert "no augmentation named 'flop': did you mean 'flip'" in line
    assert "labels" in fails(2, "train", "glyphs", "--labels", "some")
