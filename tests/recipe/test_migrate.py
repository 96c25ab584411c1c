"""What rbml 0.1.0 has written can still be used. The files beside this were written by it, on two cores, PyTorch 2.13.

``whole`` is a run of six outer steps, ``half`` the same run stopped after four, ``adapted.rbml`` what ``rbml adapt``
made of ``whole`` and two classes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rbml.recipe import Choice, Recipe, build
from rbml.recipe.migrate import migrated
from rbml.training import RunFolder, evaluate, files, train
from rbml.training.adapted_file import load_adapted

WRITTEN = Path(__file__).parents[1] / "data_0_1_0"


def flat() -> dict[str, object]:
    entries: dict[str, object] = json.loads((WRITTEN / "whole" / "config.json").read_text())["recipe"]
    return entries


def test_every_entry_has_its_place() -> None:
    recipe = Recipe.from_json(flat())
    assert recipe.data[0].source == "glyphs"
    assert recipe.algorithm == Choice(name="meta_sgd", options={"shared_head": False, "statistics": "transductive"})
    assert recipe.model == Choice(name="conv4", options={"filters": 2, "norm": "batch", "pool": "stride"})
    assert recipe.strategy.settings == {"sgd.lr.per": "layer"}
    assert (recipe.tasks.queries, recipe.outer.meta_steps, recipe.outer.tasks, recipe.outer.lr) == (2, 6, 2, 0.002)
    assert (recipe.execution.compile, recipe.engine, recipe.outer.pretrain) == ("no", None, 0)


def test_what_it_could_say_is_understood() -> None:
    more = {"data": "folder:/a:b", "compile": True, "model": "mlp", "engine": "adjoint", "context": 3, "lr": 0.5,
            "engine_options": {"store": "segments"}, "options": {"adapt": "head.*"}, "strategy": "momentum, sgd",
            "strategy_file": "x", "freeze_strategy": True}  # fmt: skip
    recipe = Recipe(**migrated(flat() | more))
    assert (recipe.data[0].name, recipe.data[0].path) == ("folder", "/a:b")
    assert recipe.execution.compile == "whole"
    assert recipe.model == Choice(name="mlp", options={"context": 3, "hidden": [256, 128, 64, 64]})
    assert recipe.engine == Choice(name="adjoint", options={"store": "segments"})
    assert recipe.algorithm.options["adapt"] == "head.*" and recipe.algorithm.options["lr"] == 0.5
    assert (recipe.strategy.chain, recipe.strategy.file, recipe.strategy.freeze) == ("momentum, sgd", "x", True)


def test_a_run_goes_on_to_the_end_that_it_would_have_had(tmp_path: Path) -> None:
    whole, run = RunFolder(WRITTEN / "whole"), RunFolder(shutil.copytree(WRITTEN / "half", tmp_path / "run"))
    recipe = run.recipe()
    steps = list(train(run, recipe, build.tasks(recipe, "train"), build.tasks(recipe, "val")))
    assert [step.step for step in steps] == [5, 6]
    for ours, theirs in zip(run.lines(), whole.lines(), strict=True):
        assert ours.keys() - theirs.keys() <= {"validation_seen"}  # what rbml 0.1.0 did not measure
        same = {name: ours[name] for name in theirs}
        assert {**same, "seconds": 0} == pytest.approx({**theirs, "seconds": 0}, rel=1e-4)
    for path, kind in ((run.last, "checkpoint"), (run.best, "best")):
        ours, theirs = files.load(path, kind), files.load(whole.path / path.name, kind)
        assert ours["step"] == theirs["step"]
        for name, leaf in theirs["learner"].items():  # another processor may round otherwise
            torch.testing.assert_close(ours["learner"][name], leaf, rtol=1e-3, atol=1e-5)


def test_a_run_is_evaluated() -> None:
    run = RunFolder(WRITTEN / "whole")
    scores = evaluate(run.learner(), build.tasks(run.recipe(), "test"), 8, 0)
    assert run.setting().to_json() == {
        "inputs": {"kind": "pictures", "spec": {"size": 28, "channels": 1}}, "target": "classes", "outputs": 5,
    }  # fmt: skip
    assert "transductive" in scores


def test_an_adapted_file_predicts() -> None:
    adapted, *_ = load_adapted(WRITTEN / "adapted.rbml")
    picture = torch.rand(1, 1, 28, 28)
    assert adapted(picture).shape == (1, 2)
