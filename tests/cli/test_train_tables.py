"""Real values from the command line: a table of the user's own, trained, resumed, evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rbml.recipe.protocol import recipe_of
from rbml.training import RunFolder

OPTIONS = "--group who --target score --shots 2 --queries 2 --tasks 2 --meta-steps 4 --validate-every 2"

MAML = ["--algorithm", "maml", "--lr", "0.01"]


@pytest.fixture
def table() -> Path:
    """Twelve people with six rows each: a score that depends on one input and on who it is."""
    source = np.random.default_rng(0)
    rows = ["who,when,a,b,score"]
    for who in range(12):
        for when in range(6):
            a, b = source.normal(size=2)
            rows.append(f"p{who},{when},{a:.4f},{b:.4f},{2 * a + source.normal() / 10 + who:.4f}")
    path = Path("scores.csv")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_table_is_trained_on_resumed_and_evaluated(table: Path, rbml: Callable, fails: Callable) -> None:
    words = [*OPTIONS.split(), "--validate-tasks", "3", "--order", "time", "--set", "data.order=when"]
    result = rbml("train", f"table:{table}", *words, "--set", "model.hidden=[8]", *MAML, "--run", "r")
    assert result.code == 0, result.err
    assert "2-shot, 2 queries, 1 inner step" in result.out and "best validation" in result.out
    run = RunFolder("r")
    setting = run.setting()
    assert (setting.target.kind, setting.outputs, setting.modality.facts()["inputs"]) == ("real", 1, 2)
    recipe = run.recipe()
    assert recipe.data[0].options == {"group": "who", "target": "score", "order": "when"}
    assert (recipe.tasks.name, recipe.tasks.options, recipe.model.options) == (
        "per_group", {"order": "time"}, {"hidden": [8]},
    )  # fmt: skip
    lines = list(run.lines())
    assert all("MAE" in line and "accuracy" not in line for line in lines)
    validated = [line["validation"] for line in lines if "validation" in line]
    assert run.best_validation() == min(validated)  # less is better
    assert rbml("train", "--resume", "r").code == 0
    found = json.loads(rbml("evaluate", "r", "--episodes", "3", "--json").out)
    assert "MAE" in found
    assert "target score (not b)" in fails(2, "train", "--resume", "r", "--target", "b")
    assert "per_group cannot be drawn" in fails(2, "evaluate", "r", "--tasks", "glyphs")
    assert "pretraining needs classes" in fails(2, "train", f"table:{table}", *words, "--pretrain", "2", "--run", "s")


def test_a_run_without_a_number_per_table_is_named_by_its_shots(table: Path, rbml: Callable) -> None:
    assert rbml("train", f"table:{table}", *OPTIONS.split(), "--validate-tasks", "3").code == 0
    assert [path.name for path in Path("runs").iterdir()] == ["scores-2s-ridge_regression"]


def test_the_source_says_which_learner_fits_and_another_can_be_asked_for() -> None:
    assert recipe_of("parkinsons", {}).algorithm.name == "ridge_regression"
    recipe = recipe_of("table:rows.csv", {"algorithm": "maml", "lr": 0.01, "shots": 3})
    assert (recipe.algorithm.name, recipe.tasks.shots, recipe.model.name) == ("maml", 3, "mlp")


def test_several_sources_are_mixed(rbml: Callable) -> None:
    words = "--filters 4 --tasks 2 --meta-steps 1 --validate-tasks 2 --queries 1"
    result = rbml("train", "glyphs+glyphs", *words.split())
    assert result.code == 0, result.err
    assert "5-way 1-shot, 1 query per class, 1 inner step" in result.out
    assert json.loads(rbml("evaluate", "runs/glyphs+glyphs-5w1s-maml", "--episodes", "2", "--json").out)["tasks"] == (
        "glyphs+glyphs"
    )
