"""The run folder: what it says when something of it is missing or damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import rbml
from rbml.errors import CheckpointError, RbmlError
from rbml.training import Recipe, RunFolder, files

Trained = Callable[..., RunFolder]


def test_a_folder_gives_back_what_was_put_into_it(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = RunFolder(tmp_path / "deep" / "run")
    run.create(recipe(lr=0.3), {"training": "some"}, "/data")
    assert run.recipe() == recipe(lr=0.3)
    config = json.loads(run.config.read_text())
    assert (config["data_root"], config["about"]) == ("/data", {"training": "some"})
    assert config["versions"]["rbml"] == rbml.__version__
    assert config["threads"] == 1
    assert (run.saved_step(), list(run.lines())) == (0, [])


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RbmlError, match=f"cannot write {tmp_path}/file/run: Not a directory"):
        RunFolder(tmp_path / "file" / "run").create(recipe(), {}, None)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{tmp_path}/none does not exist.*rbml train"):
        RunFolder(tmp_path / "none").recipe()
    with pytest.raises(CheckpointError, match=f"{tmp_path} is not a run folder: it has no config.json"):
        RunFolder(tmp_path).recipe()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"recipe": {}}', "\x00\x00"])
def test_a_damaged_configuration_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"{tmp_path}/config.json is damaged"):
        RunFolder(tmp_path).recipe()


def test_a_run_without_checkpoint_says_how_to_go_on(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    run = RunFolder(tmp_path)
    run.create(recipe(), {}, None)
    for which in ("best", "last"):
        with pytest.raises(CheckpointError, match=f"no checkpoint yet: rbml train --resume {tmp_path}"):
            run.learner(which)


def test_the_last_checkpoint_stands_in_for_the_best_before_the_first_validation(
    trained: Trained, recipe: Callable[..., Recipe]
) -> None:
    run = trained("run", recipe(), 2)
    assert not run.best.exists()
    assert run.saved_step() == 2
    assert run.learner().state_dict().keys() == run.learner("last").state_dict().keys()


def test_a_checkpoint_of_another_model_is_named(trained: Trained, recipe: Callable[..., Recipe]) -> None:
    run = trained("run", recipe(meta_steps=1))
    config = json.loads(run.config.read_text())
    config["recipe"]["model"]["options"]["filters"] = 3
    files.write_json(run.config, config)
    with pytest.raises(CheckpointError, match=r"best\.pt belongs to another model .*: size mismatch for model"):
        run.learner()
    config["recipe"]["model"]["options"]["norm"] = "none"
    files.write_json(run.config, config)
    with pytest.raises(CheckpointError, match=r"belongs to another model .*: Missing key"):
        run.learner()


def test_a_line_that_was_cut_off_is_left_out_and_another_damage_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.journal.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    assert [entry["step"] for entry in run.lines()] == [1, 2]
    run.trim_journal(1)
    assert run.journal.read_text() == '{"step": 1}\n'
    for line in (b'{"ste', b"[]", b"{}", b"\x00\xff"):
        run.journal.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
        with pytest.raises(CheckpointError, match=r"journal\.jsonl is damaged: line 2 "):
            list(run.lines())
