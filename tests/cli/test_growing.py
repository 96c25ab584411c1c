"""``rbml adapt --store sums``: learn more without the earlier examples, and hear what it cost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rbml.predictor import Predictor
from rbml.training.adapted_file import load_adapted


@pytest.fixture(scope="module")
def streaming(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose head is made from running sums; read only."""
    from tests.cli.conftest import TINY, run_command

    path = tmp_path_factory.mktemp("runs") / "streaming"
    options = [*TINY, "--shots", "2", "--algorithm", "streaming_lda", "--norm", "layer"]
    assert run_command("train", f"folder:{pictures}", *options, "--run", path) == 0
    return path


@pytest.fixture
def parts(drawn: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three classes of pictures, two classes that come later with more of the last one, and all of them together."""
    whole = drawn(tmp_path / "whole", 5, [4])
    early, late = tmp_path / "early", tmp_path / "late"
    for label in range(5):
        target = early if label < 3 else late
        shutil.copytree(whole / f"class {label}", target / f"class {label}")
    (late / "class 2").mkdir()
    for path in sorted((early / "class 2").iterdir())[:2]:
        path.rename(late / "class 2" / path.name)
    return early, late, whole


def adapted(rbml: Callable, *arguments: object) -> str:
    result = rbml("adapt", *arguments)
    assert (result.code, result.err) == (0, ""), result
    return " ".join(str(result.out).split())


def test_it_goes_on_without_the_pictures_and_is_the_model_of_all_of_them(
    streaming: Path, rbml: Callable, parts: tuple[Path, Path, Path]
) -> None:
    early, late, whole = parts
    out = adapted(rbml, streaming, "--support", early, "--store", "sums", "--out", "first")
    assert "Learned from 10 pictures in" in out and "now 3 classes: class 0 4, class 1 4, class 2 2" in out
    assert "keeps sums of their features and none of the pictures" in out and "Earlier classes" not in out
    kept = load_adapted(Path("first")).kept
    assert kept is not None and kept.examples is None and kept.remembered is not None
    shutil.rmtree(early)
    out = adapted(rbml, "first", "--support", late, "--out", "second")
    assert "Went on from 10 pictures of 3 classes with 10 pictures in" in out
    assert "now 5 classes: class 0 4, class 1 4, class 2 4, class 3 4, class 4 4" in out
    assert "Earlier classes (3, 10 pictures): " in out and "% right before, " in out
    assert "each predicted from all the others" in out
    adapted(rbml, streaming, "--support", whole, "--out", "together")
    files = sorted(whole.glob("*/*.*"))
    one, other = (json.loads(rbml("predict", name, *files, "--json").out) for name in ("second", "together"))
    assert [row["class"] for row in one] == [row["class"] for row in other]
    logits = [Predictor.load(name)([str(path) for path in files]).output for name in ("second", "together")]
    assert torch.allclose(logits[0], logits[1], rtol=1e-3, atol=1e-3)


def test_what_it_cost_is_what_the_heads_of_the_others_say(
    streaming: Path, rbml: Callable, parts: tuple[Path, Path, Path]
) -> None:
    from rbml.data.batch import Batch
    from rbml.training.going_on import grow
    from rbml.training.learned import load

    early, late, _ = parts
    adapted(rbml, streaming, "--support", early, "--store", "sums", "--out", "first")
    learned = load("first")
    found = learned.setting.modality.find([late], labelled=True)
    names = [f"class {label}" for label in range(5)]
    y, _ = learned.setting.target.read(found.labels or [], names)
    cost = grow(learned, Batch(learned.setting.modality.read(found.raw), y), names).cost
    assert cost is not None and len(cost.truth) == 10
    run = load(str(streaming))
    old, new = (run.setting.modality.find([place], labelled=True) for place in (early, late))
    ready = run.setting.modality.ready(run.setting.modality.read([*old.raw, *new.raw]))
    labels, _ = run.setting.target.read([*(old.labels or []), *(new.labels or [])], names)
    for place in range(10):
        for count, ways, taken in ((10, 3, cost.before), (20, 5, cost.after)):
            rest = torch.arange(count) != place
            other = run.learner.adapt(ready[:count][rest], labels[:count][rest], ways=ways)
            assert other(ready[place : place + 1]).argmax(1).item() == taken[place].item()


def test_a_file_with_examples_goes_over_to_sums(
    streaming: Path, rbml: Callable, parts: tuple[Path, Path, Path]
) -> None:
    early, late, _ = parts
    adapted(rbml, streaming, "--support", early, "--out", "mine")
    out = adapted(rbml, "mine", "--support", late, "--store", "sums", "--out", "more")
    assert "Went on from 10 pictures of 3 classes" in out and "Earlier classes (3, 10 pictures)" in out
    assert Path("more").stat().st_size > 0
    out = adapted(rbml, "more", "--support", late, "--no-estimate", "--out", "again")
    assert "Expected" not in out and "Earlier classes" not in out
    better = Predictor.load("more").with_examples([str(next(late.glob("*/*")))], ["new"])
    assert better.names[-1] == "new" and better.learned is not None and better.learned.file is not None
    assert better.learned.file.kept is not None and better.learned.file.kept.counts()[-1] == 1


def test_what_cannot_be_is_refused(
    streaming: Path, trained: Path, rbml: Callable, fails: Callable[..., str], parts: tuple[Path, Path, Path]
) -> None:
    early, late, _ = parts
    line = fails(2, "adapt", trained, "--support", early, "--store", "sums", "--out", "x")
    assert "trained with --algorithm streaming_lda" in line
    adapted(rbml, streaming, "--support", early, "--store", "sums", "--out", "first")
    line = fails(2, "adapt", "first", "--support", late, "--store", "examples", "--out", "x")
    assert "first keeps sums and no examples" in line
    line = fails(2, "adapt", "first", "--support", late, "--unlabelled", late, "--out", "x")
    assert "--unlabelled needs the labelled examples" in line
    assert not Path("x").exists()
