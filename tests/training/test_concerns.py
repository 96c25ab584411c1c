"""What is worth a warning in examples whose classes are not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rbml.data.inputs.pictures import Pictures
from rbml.training.concerns import concerns

image = pytest.importorskip("PIL.Image")


def test_copies_among_pictures_without_labels_are_named(tmp_path: Path) -> None:
    source, paths = np.random.default_rng(0), []
    for name, seen in zip("abc", source.integers(0, 256, (3, 8, 8), dtype=np.uint8), strict=True):
        paths.append(tmp_path / f"{name}.png")
        image.fromarray(seen).save(paths[-1])
    modality, names = Pictures(8), ["a", "b", "c"]
    assert concerns(modality, paths, names, None) == []
    said = concerns(modality, [*paths, paths[1]], [*names, "copy of b"], None)
    assert said == ["b and copy of b are the same: in a count of the predictions a copy counts twice"]
