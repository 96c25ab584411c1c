"""Every command that computes, on a device: it mixes no tensors, and gives what it gives on the processor."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import draw
from tests.cli.test_text import VERBS, written
from tests.devices import pretend
from tests.devices.conftest import OPTIONS, PICTURES

from rbml.cli.main import COMMANDS, cli
from rbml.training import RunFolder, files, rivals

WITHOUT = {"report", "strategy", "list"}
"""These only show what was computed before."""


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to write into."""
    return shutil.copytree(trained, tmp_path / "run")


def digest(run: object) -> str:
    """Return the digest of everything in a checkpoint."""
    content = files.load(RunFolder(str(run)).last, "checkpoint")
    return files._digest(content)


def told(text: str) -> str:
    """Return what a command printed, without how long it took."""
    return re.sub(r"\d+\.\d s\b", "", text)


def entries(run: object) -> list[dict[str, object]]:
    """Return a run's journal without times."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in RunFolder(str(run)).lines()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_computes_has_the_option(name: str, rbml: Callable) -> None:
    text = rbml(name, "--help").out
    assert ("--device auto|cpu|cuda|mps" in text) == (name not in WITHOUT)


def test_a_device_that_is_not_there_is_an_error_in_one_line(rbml: Callable, trained: Path) -> None:
    result = rbml("evaluate", trained, "--device", "cuda:7")
    (line,) = result.err.splitlines()
    assert result.code == 2 and "there is no device cuda:7 here" in line and "there is: cpu" in line
    assert "did you mean 'cuda'" in rbml("evaluate", trained, "--device", "cudda").err
    assert "tf32 is a way of computing on cuda" in rbml("evaluate", trained, "--precision", "tf32").err


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--pretrain 2 --algorithm maml++ --keep-best 2",
        "--augment crop,flip,affine,elastic,erase --set task.mix_classes=0.5 --set task.turn_classes=true",
        "--labels none --augment shift",
        "--labels none --task cactus --ways 2 --queries 1",
        "--algorithm streaming_lda",
        "--algorithm oml --task continual --model mlp --steps 6 --shots 2 --set learner.cosine=true",
    ],
)
def test_a_run_is_the_same_on_a_device(options: str, there: Callable, rbml: Callable, pictures: Path) -> None:
    sizes = [one for one in PICTURES if "mlp" not in options or one not in ("--filters", "4")]
    arguments = ["train", f"folder:{pictures}", *sizes, *options.split()]
    there(*arguments, "--run", "there")
    assert rbml(*arguments, "--run", "here", "--device", "cpu").code == 0
    assert digest("there") == digest("here") and entries("there") == entries("here")


def test_what_is_recorded_there_is_replayed_there(there: Callable, pictures: Path) -> None:
    """Other operators are recorded there, so that it is the same up to rounding only."""
    there("train", f"folder:{pictures}", *PICTURES, "--algorithm", "anil", "--compile", "trace", "--run", "r")


def test_a_run_goes_on_elsewhere(there: Callable, rbml: Callable, run: Path, tmp_path: Path) -> None:
    here = shutil.copytree(run, tmp_path / "here")
    there("train", "--resume", run, "--meta-steps", "5")
    rbml("train", "--resume", run, "--meta-steps", "6")
    for steps in (5, 6):
        rbml("train", "--resume", here, "--meta-steps", steps)
    assert digest(run) == digest(here)


def test_the_host_waits_once_in_a_meta_step(there: Callable, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rbml.training import trainer

    waits: list[int] = []
    plain = trainer.numbers

    def counted(*values: object) -> list[float]:
        found = plain(*values)  # type: ignore[arg-type]
        waits.append(pretend.record.waits.total())
        return found

    monkeypatch.setattr(trainer, "numbers", counted)
    options = [*PICTURES, "--meta-steps", "6", "--validate-every", "6", "--save-every", "6", "--clip", "1"]
    there("train", f"folder:{pictures}", *options, "--run", "r")
    # In the first step shapes are seen for the first time, and what is remembered of them is found out.
    assert [later - sooner for sooner, later in pairwise(waits)] == [1] * 5


@pytest.mark.parametrize("options", [[], ["--ensemble"], ["--ways", "2", "--shots", "2", "--steps", "2"]])
def test_evaluate(options: list[str], there: Callable, rbml: Callable, run: Path) -> None:
    arguments = ["evaluate", run, "--episodes", "3", *options]
    assert there(*arguments).out == rbml(*arguments, "--device", "cpu").out


def test_evaluate_with_baselines(there: Callable, rbml: Callable, run: Path) -> None:
    arguments = ["evaluate", run, "--episodes", "3", "--baselines"]
    assert there(*arguments).out == rbml(*arguments, "--device", "cpu").out


def test_adapt_and_all_that_follows(
    there: Callable, rbml: Callable, run: Path, mine: Path, tmp_path: Path, drawn: Callable
) -> None:
    more = drawn(tmp_path / "more", 4, [2], seed=5)
    for device in (pretend.NAME, "cpu"):
        do, place = (there if device == pretend.NAME else rbml), tmp_path / device
        place.mkdir()
        first = do("adapt", run, "--support", mine, "--out", place / "mine")
        assert "calibr" not in first.err
        do("adapt", place / "mine", "--support", more, "--out", place / "more")  # a class more
        do("adapt", run, "--support", mine, "--unlabelled", more / "class 0", "--out", place / "beside")
        for name in ("mine", "more", "beside"):
            found = do("predict", place / name, more, "--json").out + do("score", place / name, "--folder", more).out
            (place / f"{name}.txt").write_text(found)
    for name in ("mine", "more", "beside"):
        assert (tmp_path / "cpu" / f"{name}.txt").read_text() == (tmp_path / pretend.NAME / f"{name}.txt").read_text()
        contents = [files.load(tmp_path / device / name, "adapted") for device in ("cpu", pretend.NAME)]
        assert files._digest(contents[0]) == files._digest(contents[1])


@pytest.fixture
def drawn() -> Callable[..., Path]:
    return draw


def test_going_on_from_sums(there: Callable, tmp_path: Path) -> None:
    kinds = {f"{name}{number}": f"{verb} {number}" for name, verb in VERBS.items() for number in ("one", "two")}
    data = written(tmp_path / "many.csv", kinds)
    options = [*OPTIONS, "--ways", "2", "--shots", "2", "--set", "data.buckets=64", "--algorithm", "streaming_lda"]
    there("train", f"text:{data}", *options, "--run", "r")
    some = written(tmp_path / "some.csv", {name: VERBS[name] for name in ("arrival", "lost")})
    other = written(tmp_path / "other.csv", {"pin": VERBS["pin"]})
    there("adapt", "r", "--support", some, "--store", "sums", "--out", "one")
    assert "now 3 classes" in there("adapt", "one", "--support", other, "--out", "two").out
    assert len(json.loads(there("predict", "two", "where is it", "--json").out)) == 1


def test_chat(there: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {f"{name}{number}": f"{verb} {number}" for name, verb in VERBS.items() for number in ("one", "two")}
    data = written(tmp_path / "many.csv", kinds)
    options = [*OPTIONS, "--ways", "2", "--shots", "2", "--set", "data.buckets=64", "--algorithm", "ridge_cv"]
    there("train", f"text:{data}", *options, "--run", "r")
    some = written(tmp_path / "some.csv", {name: VERBS[name] for name in ("arrival", "lost")})
    there("adapt", "r", "--support", some, "--out", "bot")
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.StringIO("where is it\nno, that is new\n/undo\n/teach lost: it is gone\n"))
    assert "Learned: that is lost" in there("chat", "bot").out


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve patients with eight rows each."""
    source, lines = np.random.default_rng(0), ["patient,age,dose,score"]
    for patient in range(12):
        for age, dose in source.random((8, 2)):
            lines.append(f"p{patient},{age:.3f},{dose:.3f},{patient + age * (1 + patient) - dose:.3f}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path / "table.csv"


@pytest.mark.parametrize("algorithm", ["maml", "alpaca"])
def test_a_table_from_training_to_prediction(algorithm: str, there: Callable, rbml: Callable, table: Path) -> None:
    options = ["--group", "patient", "--target", "score", "--shots", "3", "--algorithm", algorithm, *OPTIONS]
    there("train", f"table:{table}", *options, "--run", "r")
    assert rbml("train", f"table:{table}", *options, "--run", "s").code == 0 and digest("r") == digest("s")
    arguments = ["evaluate", "r", "--episodes", "3", "--baselines"]
    assert there(*arguments).out == rbml(*arguments).out
    there("adapt", "r", "--support", table, "--out", "mine")
    assert there("predict", "mine", table, "--csv").out == rbml("predict", "mine", table, "--csv").out
    assert there("score", "mine", "--folder", table, "--json").out


def test_a_mixture(there: Callable, pictures: Path) -> None:
    there("train", f"folder:{pictures}+folder:{pictures}", *PICTURES, "--run", "r")


def test_curve(there: Callable, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals, "RATES", (0.03, 0.1))
    monkeypatch.setattr(rivals, "STEPS", (1, 2))
    names = [one["name"] for one in json.loads(
        there("curve", run, "--shots", "1,2", "--episodes", "2", "--queries", "2", "--json").out
    )["methods"]]  # fmt: skip
    assert {rivals.LEARNER, rivals.FINE_TUNING, rivals.SCRATCH} < set(names) and len(names) > 4


def test_transfer(there: Callable, pictures: Path, trained: Path) -> None:
    source = f"folder:{pictures}"
    there(
        "transfer", "--train", source, "--test", source, "--runs", trained, *PICTURES, "--episodes", "2", "--out", "t"
    )


def test_check_and_explain(there: Callable, run: Path) -> None:
    small = ["glyphs", "--size", "8", "--filters", "2", "--ways", "2", "--queries", "1", "--algorithm", "anil"]
    assert "central differences" in there("check", *small).out
    assert "Choice:" in there("explain", run).out


@pytest.mark.parametrize("how", ["whole", "online"])
def test_tune(how: str, there: Callable, tmp_path: Path) -> None:
    lines = [f"{a:.3f},{b:.3f},{2 * a - b:.3f}" for a, b in np.random.default_rng(0).random((40, 2))]
    (tmp_path / "plain.csv").write_text("\n".join(["a,b,price", *lines]))
    options = ["--target", "price", "--out", "mine", "--seconds", "1", "--steps", "6", "--starts", "1", "--how", how]
    there("tune", "plain.csv", *options)
    there("tune", "plain.csv", *options, "--resume")
    there("predict", "mine", "plain.csv", "--csv")


def test_demo(there: Callable) -> None:
    assert "real handwritten digits" in there("demo", "--run", "r", "--meta-steps", "1", "--episodes", "2").out


def test_no_command_was_forgotten() -> None:
    """Whoever adds a command tests it here, or says why it computes nothing.

    Of ``rate`` only the features of a backbone are computed there, as for the other commands.
    """
    tested = "train evaluate adapt predict score chat curve transfer check explain tune demo rate"
    assert set(COMMANDS) == {*tested.split(), *WITHOUT} and cli is not None
