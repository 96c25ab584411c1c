"""Bad input: one line that names the thing and the way out, 2 for wrong use, 1 for failure, and no traceback."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rbml.training import RunFolder, files

Fails = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian", ["'trian'", "did you mean 'train'"]),
        ("train", ["which source?", "rbml list data"]),
        ("train glyfs", ["'glyfs'", "did you mean 'glyphs'", "omniglot"]),
        ("train glyphs --way 3", ["--way", "--ways", "rbml train --help"]),
        ("train glyphs --ways three", ["--ways", "'three'", "rbml train --help"]),
        ("train glyphs --ways 1", ["2 classes"]),
        ("train glyphs --shots 0", ["shots", "not 0"]),
        ("train glyphs --tasks -4", ["tasks", "-4"]),
        ("train glyphs --lr nan", ["lr", "nan"]),
        ("train glyphs --outer-lr -1", ["outer_lr", "-1.0"]),
        ("train glyphs --algorithm mamal", ["'mamal'", "did you mean 'maml'"]),
        ("train glyphs --model conv5", ["'conv5'", "did you mean 'conv4'"]),
        ("train glyphs --engine adjont", ["'adjont'", "did you mean 'adjoint'"]),
        ("train glyphs --statistics running", ["'running'", "transductive"]),
        ("train folder", ["folder:PATH"]),
        ("train glyphs --set strategy.sgd.lr.per", ["--set needs NAME=VALUE"]),
        ("train glyphs --set stratgy.sgd.lr=1", ["'stratgy'", "did you mean 'strategy'"]),
        ("train glyphs --set ways=3", ["--ways 3"]),
        ("train glyphs --set strategy.sdg.lr=1", ["'sdg'", "did you mean 'sgd'"]),
        ("train glyphs --set strategy.sgd.lrr=1", ["'lrr'", "did you mean 'lr'"]),
        ("train glyphs --set strategy.sgd.lr.pre=all", ["'pre'", "did you mean 'per'"]),
        ("train glyphs --set strategy.sgd.lr.per=layr", ["'layr'", "did you mean 'layer'"]),
        ("train glyphs --set strategy.adam.beta1=0.8", ["has no adam", 'strategy="adam, sgd"']),
        ("train glyphs --set strategy=momentm,sgd", ["'momentm'", "did you mean 'momentum'"]),
        ("train glyphs --set learner.adpt=x", ["'adpt'", "did you mean 'adapt'"]),
        ("train glyphs --set learner=x", ["learner.adapt='head.*'"]),
        ("train glyphs --strategy momentum,sgd", ["no file momentum,sgd", "--set strategy=momentum,sgd"]),
        ("train glyphs --config none.toml", ["none.toml cannot be read", "No such file"]),
        ("strategy exprot", ["'exprot'", "did you mean 'export'"]),
        ("strategy export x", ["--out", "rbml strategy export --help"]),
        ("strategy show none", ["no file or run none"]),
        ("train glyphs --run a --resume b", ["--resume", "--run"]),
        ("train --resume none", ["no run in none", "name a source"]),
        ("list modles", ["'modles'", "did you mean 'models'"]),
        ("evaluate", ["RUN", "rbml evaluate --help"]),
        ("evaluate x --episodes 1", ["--episodes", "x>=2"]),
        ("adapt x", ["--support", "rbml adapt --help"]),
        ("predict x", ["INPUT", "rbml predict --help"]),
        ("predict x y --json --csv", ["--json", "--csv"]),
        ("demo --meta-steps 0", ["--meta-steps", "rbml demo --help"]),
    ],
)
def test_wrong_use(arguments: str, said: list[str], fails: Fails) -> None:
    line = fails(2, *arguments.split())
    assert [words for words in said if words not in line] == []
    assert list(Path().iterdir()) == []  # nothing was begun


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--norm bach", ["'bach'", "did you mean 'batch'"]),
        ("--pool maxi", ["'maxi'", "did you mean 'max'"]),
        ("--split lake", ["'lake'", "classes"]),
        ("--ways 40", ["40 ways", "lower the ways"]),
    ],
)
def test_wrong_use_that_model_or_data_shows(
    options: str, said: list[str], pictures: Path, fails: Fails, tiny: list[str]
) -> None:
    line = fails(2, "train", f"folder:{pictures}", *tiny, "--run", "r", *options.split())
    assert [words for words in said if words not in line] == []
    assert not Path("r").exists()


def test_too_few_pictures(pictures: Path, fails: Fails) -> None:
    line = fails(1, "train", f"folder:{pictures}", "--run", "r", "--ways", "2", "--shots", "30")
    assert "class 'class" in line
    assert "has 4 examples" in line
    assert "30 shots and 5 queries need 35" in line
    assert not Path("r").exists()


def test_a_run_is_never_trained_over(run: RunFolder, fails: Fails, pictures: Path, tiny: list[str]) -> None:
    before = run.last.read_bytes()
    line = fails(2, "train", f"folder:{pictures}", *tiny, "--run", run.path)
    assert f"--resume {run.path}" in line
    line = fails(2, "train", "--resume", run.path, "--ways", "5", "--lr", "0.1")
    assert "ways 3 (not 5), lr None (not 0.1)" in line
    assert "leave these options out" in line
    assert "data folder:" in fails(2, "train", "glyphs", "--resume", run.path)
    assert run.last.read_bytes() == before


@pytest.mark.parametrize("command", ["evaluate {}", "report {}", "adapt {} --support {} --out x"])
def test_a_run_that_is_missing(command: str, fails: Fails) -> None:
    line = fails(1, *command.format("runs/none", "pictures").split())
    assert "runs/none does not exist" in line
    assert "rbml train" in line
    Path("empty").mkdir()
    assert "empty is not a run folder" in fails(1, *command.format("empty", "pictures").split())


def test_a_run_that_has_no_checkpoint_yet(run: RunFolder, fails: Fails) -> None:
    run.best.unlink()
    run.last.unlink()
    assert f"no checkpoint yet: rbml train --resume {run.path}" in fails(1, "evaluate", run.path)


def test_damaged_checkpoints(run: RunFolder, fails: Fails, pictures: Path) -> None:
    run.best.write_bytes(run.best.read_bytes()[:-200])
    for arguments in (["evaluate", run.path], ["adapt", run.path, "--support", pictures, "--out", "x"]):
        line = fails(1, *arguments)
        assert f"{run.best} is damaged" in line
    run.last.write_bytes(b"")
    assert f"{run.last} is damaged" in fails(1, "train", "--resume", run.path)
    run.config.write_text("{")
    assert f"{run.config} is damaged" in fails(1, "evaluate", run.path)


def test_a_checkpoint_of_another_model(run: RunFolder, fails: Fails) -> None:
    config = json.loads(run.config.read_text())
    config["recipe"]["model"]["options"]["filters"] = 5
    files.write_json(run.config, config)
    for arguments in (["evaluate", run.path], ["train", "--resume", run.path]):
        assert "belongs to another model than the run's configuration" in fails(1, *arguments)


def test_evaluations_that_cannot_be(trained: Path, pictures: Path, fails: Fails) -> None:
    for code, options, said in (
        (2, ["--tasks", "quickdrw"], "did you mean 'quickdraw'"),
        (2, ["--ways", "9"], "9 ways need 9 classes, but the data has 4"),
        (1, ["--shots", "4"], "has 4 examples"),
        (1, ["--tasks", "folder:none"], "none' does not exist"),
        (2, ["--part", "tests"], "--part"),
        (2, ["--split", "lake"], "'lake'"),
        (2, ["--seed", "-1"], "--seed"),
    ):
        assert said in fails(code, "evaluate", trained, "--episodes", "2", *options)


def test_supports_that_cannot_be_learned_from(
    trained: Path, fails: Fails, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    def fail(code: int, out: str = "mine") -> str:
        line = fails(code, "adapt", trained, "--support", support, "--out", out)
        assert not Path(out).is_file()
        return line

    support = tmp_path / "support"
    assert "support' does not exist" in fail(1)
    support.mkdir()
    assert "has no class folders" in fail(1)
    drawn(support, 1, [2])
    assert "one class (class 0): add another" in fail(2)
    (support / "second").mkdir()
    assert "second' is empty" in fail(1)
    (support / "second" / "picture.png").write_text("no picture")
    assert "second/picture.png' cannot be read as a picture" in fail(1)
    (support / "second" / "picture.png").write_bytes(b"")
    assert "second/picture.png' cannot be read as a picture" in fail(1)
    shutil.copy(support / "class 0" / "0.png", support / "second" / "picture.png")
    assert "cannot write none/mine: No such file or directory" in fail(1, "none/mine")
    Path("folder").mkdir()
    assert "cannot write folder: Is a directory" in fail(1, "folder")


def test_predictions_that_cannot_be(
    trained: Path, fails: Fails, rbml: Callable, drawn: Callable, tmp_path: Path
) -> None:
    support = drawn(tmp_path / "support", 2, [1])
    picture = support / "class 0" / "0.png"
    assert "there is no file mine: make it with rbml adapt" in fails(1, "predict", "mine", picture)
    rbml("adapt", trained, "--support", support, "--out", "mine")
    for said, path in (("does not exist", "none.png"), ("has no pictures", tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert f"'{path}' {said}" in fails(1, "predict", "mine", picture, path)
    assert "holds 'best', expected 'adapted' as rbml adapt makes it" in fails(
        1, "predict", trained / "best.pt", picture
    )
    Path("mine").write_bytes(Path("mine").read_bytes()[:500])
    assert "mine is damaged" in fails(1, "predict", "mine", picture)
    Path("mine").write_bytes(b"")
    assert "mine is damaged" in fails(1, "predict", "mine", picture)


def test_places_that_cannot_be_written_to(pictures: Path, tiny: list[str], fails: Fails) -> None:
    Path("file").touch()
    line = fails(1, "train", f"folder:{pictures}", *tiny, "--run", "file/run")
    assert "cannot write file/run: Not a directory" in line
    assert "choose another place" in line


def test_training_that_diverges(run: RunFolder, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    run.last.unlink()
    monkeypatch.setattr("rbml.training.trainer.norm", lambda tree: torch.tensor(float("nan")))
    line = fails(1, "train", "--resume", run.path)
    assert "gradient is not finite at outer step 1, task seeds " in line


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (MemoryError(), 1, "out of memory: use a smaller --chunk"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "smaller --chunk"),
        (OSError(5, "Input/output error", "disk"), 1, "Input/output error: 'disk'"),
    ],
)
def test_what_the_machine_does(
    error: BaseException, code: int, said: str, trained: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("rbml.training.run_folder.RunFolder.learner", fail)
    assert said in fails(code, "evaluate", trained)


def test_an_interrupt_before_training(trained: Path, rbml: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbml.training.run_folder.RunFolder.learner", lambda *arguments: signal.raise_signal(2))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    result = rbml("evaluate", trained)
    signal.signal(signal.SIGINT, before)
    assert (result.code, result.err.strip()) == (130, "rbml: interrupted")


def test_a_bug_is_called_a_bug(trained: Path, rbml: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbml.training.run_folder.RunFolder.learner", lambda *arguments: 1 / 0)
    result = rbml("evaluate", trained)
    assert result.err == "rbml: ZeroDivisionError: division by zero (this is a bug of rbml; --debug shows where)\n"
    assert result.code == 1


@pytest.mark.parametrize(("arguments", "code"), [("train glyfs", 2), ("evaluate none", 1)])
def test_debug_shows_where(arguments: str, code: int, rbml: Callable) -> None:
    for place in (0, 1, 2):
        words = arguments.split()
        words.insert(place, "--debug")
        result = rbml(*words)
        assert result.code == code
        assert "Traceback (most recent call last)" in result.err
        assert result.err.splitlines()[-1].startswith("rbml: ")
    assert "Traceback" not in rbml(*arguments.split()).err
