"""``rbml adapt`` and ``rbml predict``: any number of classes and pictures; predictions depend on nothing else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml.data.sources.folder import read_classes
from rbml.training import RunFolder


def predicted(rbml: Callable, *arguments: object) -> list[dict[str, Any]]:
    result = rbml("predict", *arguments, "--json")
    assert (result.code, result.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(result.out)
    return found


@pytest.mark.parametrize(
    ("classes", "counts"), [(2, [1]), (2, [1, 5]), (3, [2]), (7, [1, 3, 2]), (10, [1]), (14, [5, 1])]
)
def test_any_number_of_classes_and_pictures(
    classes: int, counts: list[int], trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", classes, counts)
    (support / "class 0" / ".hidden").touch()
    result = rbml("adapt", trained, "--support", support, "--out", "mine.rbml")
    assert (result.code, result.err) == (0, "")
    pictures = sum(counts[label % len(counts)] for label in range(classes))
    first = result.out.splitlines()[0]
    assert first.startswith(f"Learned {classes} classes from {pictures} pictures in ")
    expected = f": class 0 {counts[0]}, class 1 {counts[1 % len(counts)]}" if classes <= 12 else ": 1 to 5 each"
    assert expected in first
    assert ("Leaving out one picture at a time" in result.out) is (max(counts) > 1 and pictures <= 40)
    assert ("Leaving out a tenth of the pictures at a time" in result.out) is (pictures > 40)
    assert "Next: rbml predict mine.rbml IMAGE..." in result.out

    paths = sorted(support.glob("*/[0-9]*"))
    found = predicted(rbml, "mine.rbml", *paths)
    assert [one["image"] for one in found] == [str(path) for path in paths]
    for one in found:
        assert list(one["probabilities"]) == [f"class {label}" for label in sorted(range(classes), key=str)]
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["class"] == max(one["probabilities"], key=one["probabilities"].__getitem__)


def test_it_is_what_the_learner_learns_and_predicts(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 4, [3, 2])
    rbml("adapt", trained, "--support", support, "--out", "mine")
    found = predicted(rbml, "mine", *sorted(support.glob("*/*.*")))
    run = RunFolder(trained)
    arrays = read_classes(support, run.recipe().inputs.size, 1)
    x = arrays.x.float() / 255
    adapted = run.learner().adapt(x, arrays.y, ways=4)
    truth = torch.softmax(adapted(x).double(), 1).detach()
    ours = torch.tensor([list(one["probabilities"].values()) for one in found], dtype=torch.float64)
    torch.testing.assert_close(ours, truth, atol=1e-6, rtol=1e-5)


def test_a_prediction_is_the_same_to_the_bit_whatever_else_is_in_the_call(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 5, [3])
    rbml("adapt", trained, "--support", support, "--out", "mine")
    paths = sorted(support.glob("*/*.*"))
    together = {one["image"]: one for one in predicted(rbml, "mine", *paths)}
    for path in paths[:4]:
        assert predicted(rbml, "mine", path) == [together[str(path)]]
    assert predicted(rbml, "mine", *reversed(paths)) == [together[str(path)] for path in reversed(paths)]
    assert len({json.dumps(one["probabilities"]) for one in together.values()}) == len(paths)  # and they do differ


def test_csv_is_csv_even_with_strange_names(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 2, [2])
    (support / "class 0").rename(support / 'a, "b" [red]x[red] ü')
    picture = next((support / "class 1").iterdir())
    strange = picture.rename(picture.with_name(f"x, [bold] :smile: '{picture.name}"))
    rbml("adapt", trained, "--support", support, "--out", "mine")
    result = rbml("predict", "mine", strange, "--csv")
    rows = list(csv.reader(io.StringIO(result.out)))
    assert rows[0] == ["image", "class", 'a, "b" [red]x[red] ü', "class 1"]
    assert rows[1][0] == str(strange)
    assert rows[1][1] in rows[0][2:]
    assert sum(float(value) for value in rows[1][2:]) == pytest.approx(1, abs=1e-5)
    text = rbml("predict", "mine", strange).out
    assert strange.name in text  # names are not markup
    assert 'a, "b" [red]x[red] ü' in text


def test_the_table_names_the_first_and_the_second(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 3, [1])
    rbml("adapt", trained, "--support", support, "--out", "mine")
    (one,) = predicted(rbml, "mine", picture := support / "class 2" / "0.bmp")
    (first, best), (second, next_best) = sorted(one["probabilities"].items(), key=lambda item: -item[1])[:2]
    (row,) = (line for line in rbml("predict", "mine", picture).out.splitlines() if str(picture) in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == [str(picture), first, f"{best:.1%}", f"{second} {next_best:.1%}"]


def test_colour_pictures_with_a_run_in_colour(
    rbml: Callable, drawn: Callable[..., Path], tmp_path: Path, tiny: list[str]
) -> None:
    pictures = drawn(tmp_path / "many", 18, [4], colour=True)
    options = [*tiny, "--channels", "3", "--size", "20", "--pool", "max", "--shared-head"]
    assert rbml("train", f"folder:{pictures}", *options, "--run", "r").code == 0
    assert RunFolder("r").learner().state_dict()["model.blocks.0.conv.weight"].shape == (4, 3, 3, 3)
    support = drawn(tmp_path / "support", 3, [2, 1, 3], colour=True)
    drawn(tmp_path / "grey", 1, [2])
    assert rbml("adapt", "r", "--support", support, "--out", "mine").code == 0
    assert len(predicted(rbml, "mine", *support.glob("*/*"), *(tmp_path / "grey").glob("*/*"))) == 8
