"""What every modality must do, whatever it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rbml.data import inputs
from rbml.data.inputs import Arrays, Modality, Pictures, Table, Text
from rbml.data.setting import Setting
from rbml.data.targets import CLASSES
from rbml.tree import Tree


def pictures(folder: Path) -> list[Any]:
    image = pytest.importorskip("PIL.Image")
    paths = []
    for index in range(4):
        paths.append(folder / f"{index}.png")
        image.fromarray(np.full((9, 9, 3), 60 * index, np.uint8)).save(paths[-1])
    return paths


def rows(folder: Path) -> list[Any]:
    return [{"age": 50.0 + index, "dose": str(index)} for index in range(4)]


def arrays(folder: Path) -> list[Any]:
    return [np.full((2, 3), index, np.float32) for index in range(4)]


def sentences(folder: Path) -> list[Any]:
    return ["where is my card?", "Zürich", "a b", "my card is gone, and I do not know where it can be"]


CASES: dict[str, tuple[Modality, Callable[[Path], list[Any]]]] = {
    "pictures": (Pictures(6, 3), pictures),
    "arrays": (Arrays(), arrays),
    "table": (Table(["age", "dose"], [50, 1], [2, 1]), rows),
    "text": (Text("ngrams", 64).fitted(["where is it?", "my card"]), sentences),
}


def leaves(x: Any) -> list[torch.Tensor]:
    return list(x.values()) if isinstance(x, dict) else [x]


def test_every_modality_is_tested_here() -> None:
    assert set(CASES) == set(inputs.ALL) - {"embedded"}, "that one needs weights: tests/data/inputs/test_embedded.py"


@pytest.mark.parametrize("name", CASES)
def test_it_is_made_again_from_what_is_saved_of_it(name: str) -> None:
    modality, _ = CASES[name]
    assert modality.kind == name
    assert inputs.ALL[name](**modality.spec()) == modality
    assert Setting.from_json(Setting(modality, CLASSES, 3).to_json()) == Setting(modality, CLASSES, 3)


@pytest.mark.parametrize("name", CASES)
def test_what_it_reads_has_a_row_per_thing_and_depends_on_that_thing_alone(name: str, tmp_path: Path) -> None:
    modality, make = CASES[name]
    raw = make(tmp_path)
    whole = leaves(modality.read(raw))
    assert all(len(leaf) == 4 for leaf in whole)
    for index, one in enumerate(raw):
        for leaf, alone in zip(whole, leaves(modality.read([one])), strict=True):
            assert torch.equal(leaf[index : index + 1], alone)


@pytest.mark.parametrize("name", CASES)
def test_it_is_made_ready_with_any_leading_dimensions(name: str, tmp_path: Path) -> None:
    modality, make = CASES[name]
    stored = modality.read(make(tmp_path))
    ready = leaves(modality.ready(stored))
    stacked: Any = (
        stored.reshape(2, 2, *stored.shape[1:])
        if isinstance(stored, torch.Tensor)
        else Tree({key: leaf.reshape(2, 2, *leaf.shape[1:]) for key, leaf in stored.items()})
    )
    for leaf, again in zip(ready, leaves(modality.ready(stacked)), strict=True):
        assert torch.equal(leaf, again.flatten(0, 1)) and leaf.isfinite().all()
        assert leaf.dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize("name", CASES)
def test_it_shows_every_example(name: str, tmp_path: Path) -> None:
    modality, make = CASES[name]
    shown = modality.show(modality.read(make(tmp_path)))
    assert len(shown.values) == 4
    for value in shown.values:
        if shown.kind == "picture":
            assert np.asarray(value).shape in ((6, 6), (6, 6, 3)) and 0 <= np.min(value) <= np.max(value) <= 1
        else:
            assert isinstance(value, str if shown.kind == "text" else dict)


@pytest.mark.parametrize("name", CASES)
def test_its_facts_are_plain_values(name: str) -> None:
    assert all(isinstance(value, int | str) for value in CASES[name][0].facts().values())
