"""``rbml train``: a run, a stop, a resume, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rbml import algorithms
from rbml.cli import training as module
from rbml.data.targets import CLASSES
from rbml.recipe import Recipe
from rbml.recipe.entries import ENTRIES
from rbml.training import Progress, RunFolder, files


def test_a_run_says_what_it_does_and_leaves_a_folder(
    trained: Path, pictures: Path, rbml: Callable, tiny: list[str]
) -> None:
    result = rbml("train", f"folder:{pictures}", *tiny, "--run", "again")
    assert result.code == 0
    assert "part train" in result.out
    assert "3-way 1-shot, 2 queries per class, 1 inner step, 2 tasks per outer step, 4 outer steps" in result.out
    assert "Next: rbml evaluate again" in result.out
    assert "step 4/4" in result.err
    names = {path.name for path in RunFolder("again").path.iterdir()}
    assert {"config.json", "journal.jsonl", "last.pt", "best.pt"} <= names
    config = json.loads(Path("again/config.json").read_text())
    assert config["recipe"] == RunFolder(trained).recipe().to_json()
    assert Recipe.from_json(config["recipe"]).data[0].source == f"folder:{pictures}"
    setting = {"inputs": {"kind": "pictures", "spec": {"size": 12, "channels": 1}}, "target": "classes", "outputs": 3}
    assert config["setting"] == setting
    assert "part train" in config["about"]["training"]
    assert "part val" in config["about"]["validation"]


def test_every_entry_of_a_recipe_is_an_option_with_its_default(rbml: Callable) -> None:
    text = " ".join(rbml("train", "--help").out.split())
    for name in ENTRIES:
        if name != "strategy":
            flag = {"start": "from"}.get(name, name.removesuffix("_file").replace("_", "-"))
            assert f"--{flag} " in text
    for words in ("--set NAME=VALUE", "strategy.PART.ARGUMENT", "--config FILE", "--strategy FILE"):
        assert words in text
    for words in ("[default: 2000]", "[default: the algorithm's]", ", ".join(algorithms.ALL), "[default: no]"):
        assert words in text
    assert "None" not in text
    text = text[text.index("Options to begin with:") :]
    first = [text.index(f" {option} ") for option in ("--ways", "--shots", "--algorithm", "--steps", "--meta-steps")]
    assert first == sorted(first)
    assert first[-1] < text.index(" Options:") < text.index("--help") < text.index("Tasks:") < text.index("--size N")


def test_options_come_into_the_recipe(pictures: Path, rbml: Callable, tiny: list[str]) -> None:
    options = "--lr 0.2 --steps 2 --no-shared-head --seed 3 --norm group --algorithm anil --clip 0 --meta-steps 1"
    assert rbml("train", f"folder:{pictures}", *tiny, *options.split(), "--run", "r").code == 0
    recipe = RunFolder("r").recipe()
    chosen = {"lr": 0.2, "steps": 2, "seed": 3, "norm": "group", "algorithm": "anil", "clip": 0.0, "shared_head": False}
    assert {name: recipe.short()[name] for name in chosen} == chosen and recipe.tasks.ways == 3


def test_a_folder_is_found_again_from_elsewhere(
    pictures: Path, rbml: Callable, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pictures.parent)
    place = Path("run in a relative folder")
    assert rbml("train", f"folder:{pictures.name}", *tiny, "--run", place).code == 0
    place = place.absolute()
    monkeypatch.chdir("/")
    assert rbml("train", "--resume", place).code == 0
    assert rbml("evaluate", place, "--episodes", "3").code == 0


def test_runs_get_a_name_that_is_free(pictures: Path, rbml: Callable, tiny: list[str]) -> None:
    for _ in range(2):
        rbml("train", f"folder:{pictures}", *tiny, "--meta-steps", "1")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["many-3w1s-maml", "many-3w1s-maml-2"]


def interrupted(monkeypatch: pytest.MonkeyPatch, number: int, times: int = 1) -> None:
    """Let a signal come while the first outer step is shown."""
    follow = module.follow

    def shown(steps, total, done):  # type: ignore[no-untyped-def]
        def marked():  # type: ignore[no-untyped-def]
            for progress in steps:
                if progress.step == done + 1:
                    for _ in range(times):
                        module.signal.raise_signal(number)
                yield progress

        return follow(marked(), total, done)

    monkeypatch.setattr(module, "follow", shown)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_signal_stops_it_and_it_goes_on_to_the_same_end(
    number: int,
    code: int,
    trained: Path,
    pictures: Path,
    rbml: Callable,
    tiny: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, number)
        result = rbml("train", f"folder:{pictures}", *tiny, "--run", "my run")
    assert result.code == code
    assert result.out.splitlines()[-1] == (
        "Stopped after step 2; everything is saved. Resume with: rbml train --resume 'my run'"
    )
    assert "Finishing this step, then saving. Press again to stop at once." in result.err
    result = rbml("train", "--resume", "my run")
    assert result.code == 0
    assert "Resuming after step 2" in result.out
    for kind, name in (("checkpoint", "last.pt"), ("best", "best.pt")):
        ours, theirs = (files.load(path / name, kind)["learner"] for path in (Path("my run"), trained))
        assert all(leaf.equal(theirs[name]) for name, leaf in ours.items())


def test_a_second_signal_stops_it_at_once(
    pictures: Path, rbml: Callable, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupted(patch, 15, times=2)
        result = rbml("train", f"folder:{pictures}", *tiny, "--run", "r", "--save-every", "1")
    assert result.code == 143
    expected = "Stopped at once; the checkpoint of step 1 is kept. Resume with: rbml train --resume r"
    assert result.out.splitlines()[-1] == expected
    assert rbml("train", "--resume", "r").code == 0


def test_resume_begins_a_run_where_there_is_none_and_is_content_with_one_that_ended(
    pictures: Path, rbml: Callable, tiny: list[str]
) -> None:
    command = ["train", f"folder:{pictures}", *tiny, "--resume", "r"]
    assert rbml(*command).code == 0
    before = Path("r/last.pt").read_bytes()
    result = rbml(*command)
    assert result.code == 0
    assert "4 outer steps done" in result.out
    assert Path("r/last.pt").read_bytes() == before


def test_what_goes_on_keeps_the_threads_of_the_run(
    run: RunFolder, rbml: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(run.config.read_text())
    files.write_json(run.config, config | {"threads": 7})
    asked: list[int] = []
    monkeypatch.setattr(module.torch, "set_num_threads", asked.append)
    rbml("train", "--resume", run.path)
    rbml("train", "--resume", run.path, "--threads", "2")
    assert asked == [7, 2]


def test_progress_is_shown_in_a_log_with_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = CLASSES.metrics[0]
    steps = [Progress(5, 1.25, 0.5, None, accuracy), Progress(6, 1.0, 0.625, 0.75, accuracy)]
    assert module.follow(iter(steps), 10, 4) == steps[-1]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("step 6/10  loss 1.000 acc 62.5% val 75.0%  ")


def test_compile_may_stand_alone_as_it_did_when_it_was_a_switch() -> None:
    import click

    from rbml.cli.options import RecipeCommand, recipe_options

    @click.command(cls=RecipeCommand)
    @click.argument("source", required=False)
    @recipe_options
    def command(source: str | None, **given: object) -> None:
        click.echo(repr((source, given["compile"], given["verify"], given["vectorise"])))

    from click.testing import CliRunner

    for words, expected in (
        (["glyphs", "--compile", "--ways", "3"], ("glyphs", "whole", None, None)),
        (["glyphs", "--compile", "step", "--no-verify"], ("glyphs", "step", False, None)),
        (["glyphs", "--no-compile", "--vectorise", "no"], ("glyphs", "no", None, "no")),
        (["glyphs"], ("glyphs", None, None, None)),
    ):
        assert CliRunner().invoke(command, words).output.strip() == repr(expected)


def test_pretraining_is_part_of_the_run(pictures: Path, rbml: Callable, tiny: list[str]) -> None:
    result = rbml("train", f"folder:{pictures}", *tiny, "--pretrain", "3", "--run", "r")
    assert result.code == 0, result.err
    assert "first 3 steps of pretraining on all 11 classes at once" in result.out
    run = RunFolder("r")
    assert [line["step"] for line in run.lines(pretraining=True)] == [-2, -1, 0, 1, 2, 3, 4]
    assert [line["step"] for line in run.lines()] == [1, 2, 3, 4]
    assert rbml("evaluate", "r", "--episodes", "2").code == 0
    result = rbml("train", f"folder:{pictures}", *tiny, "--pretrain", "3", "--meta-steps", "0", "--run", "only")
    assert result.code == 0, result.err
    assert rbml("evaluate", "only", "--episodes", "2").code == 0
