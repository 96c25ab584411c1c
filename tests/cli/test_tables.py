"""The commands on a table of real values: the same ones, with nothing of pictures and classes in what they say."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rbml.cli.measuring import tasks_of
from rbml.recipe import build
from rbml.training import RunFolder

OPTIONS = "--set data.group=patient --set data.target=score --shots 3 --queries 4 --meta-steps 4 --tasks 4"
TINY = [*OPTIONS.split(), "--validate-every", "2", "--validate-tasks", "4"]


def write(path: Path, groups: int, seed: int = 0) -> Path:
    """Write rows of two inputs, and a score that depends on both and on the patient."""
    source = np.random.default_rng(seed)
    lines = ["patient,age,dose,score"]
    for group in range(groups):
        offset = source.normal()
        for age, dose in source.normal(size=(10, 2)):
            lines.append(f"p{group},{60 + 5 * age:.3f},{dose:.3f},{2 * age - dose + 3 * offset:.4f}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients with ten rows each; read only."""
    return write(tmp_path_factory.mktemp("tables") / "rows.csv", 12)


@pytest.fixture
def trained_on_rows(table: Path, rbml: Callable) -> RunFolder:
    result = rbml("train", f"table:{table}", *TINY, "--run", "r")
    assert result.code == 0, result.err
    assert "MAE" in result.err and "acc" not in result.err
    return RunFolder("r")


def test_shifted_targets_are_for_training_tasks_only(table: Path, rbml: Callable) -> None:
    changed = ["--set", "task.shift=2", "--set", "task.stretch=0.5"]
    assert rbml("train", f"table:{table}", *TINY, *changed, "--run", "r").code == 0
    recipe = RunFolder("r").recipe()
    parts: dict[str, Any] = {part: build.tasks(recipe, part) for part in ("train", "val", "test")}
    shifts = {part: (tasks.shift, tasks.stretch) for part, tasks in parts.items()}
    assert shifts == {"train": (2, 0.5), "val": (0, 0), "test": (0, 0)}


def test_from_training_to_predictions(trained_on_rows: RunFolder, rbml: Callable, tmp_path: Path) -> None:
    run = trained_on_rows
    best = min(line["validation"] for line in run.lines() if "validation" in line)
    assert run.best_validation() == best  # less is better

    result = rbml("evaluate", "r", "--episodes", "6", "--baselines", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert [metric["name"] for metric in found["metrics"]] == ["MAE", "RMSE", "R2"] and "ways" not in found
    assert {"from scratch", "support mean", "ridge"} <= set(found["baselines"])
    shown = rbml("evaluate", "r", "--episodes", "6").out
    assert "mean ± 95 % interval: 3-shot, 4 queries, 6 tasks of 2 groups, interval over the groups" in shown
    assert "RMSE" in shown and "R2" in shown and "%  " not in shown and "transductive" not in shown
    sized = found["by_shots"]
    assert [one["shots"] for one in sized] == [1, 3, 5]  # ten rows are not enough for ten shots and four queries
    assert sized[1]["scores"]["support mean"]["groups"] == 2
    assert "MAE by the number of support examples: 6 tasks of 2 groups" in shown

    support = write(tmp_path / "mine.csv", 1, seed=3)
    result = rbml("adapt", "r", "--support", support, "--out", "mine")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Learned score from 10 rows in ")
    assert "Expected on new rows: MAE " in result.out and "Next: rbml predict mine FILE..." in result.out
    assert "on the same rows, beside what needs no learning across tasks" in result.out
    assert "support mean" in result.out and "guessing" not in result.out

    new = tmp_path / "new.csv"
    new.write_text("age,dose\n60,1\n70,0\n")
    records = json.loads(rbml("predict", "mine", new, "--json").out)
    assert [record["row"] for record in records] == [f"{new}:2", f"{new}:3"] and isinstance(records[0]["value"], float)
    rows = list(csv.reader(io.StringIO(rbml("predict", "mine", new, "--csv").out)))
    assert rows[0] == ["row", "value"] and float(rows[1][1]) == pytest.approx(records[0]["value"], abs=1e-5)
    assert f"{records[1]['value']:.4g}" in rbml("predict", "mine", new).out


def test_the_report_is_of_the_metric(trained_on_rows: RunFolder, rbml: Callable) -> None:
    pytest.importorskip("matplotlib")
    rbml("evaluate", "r", "--episodes", "4")
    result = rbml("report", "r")
    assert (result.code, result.err) == (0, "")
    text = (trained_on_rows.plots / "report.md").read_text()
    assert "## MAE" in text and "MAE, mean ± 95 % interval over the groups" in text and "ccuracy" not in text
    assert "- **Tasks:** 3-shot, 4 queries, from table:" in text
    for name in ("shots", "gallery", "learning_curve"):
        assert (trained_on_rows.plots / f"{name}.png").is_file()
    assert not (trained_on_rows.plots / "adaptation.png").exists()  # the head is made at once: there are no steps


def test_rows_that_cannot_be_used_are_named(
    trained_on_rows: RunFolder, rbml: Callable, fails: Callable, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text("age,dose,score\n60,1,2\n61,x,2\n")
    assert "bad.csv:3 has 'x' in the column 'dose'" in fails(1, "adapt", "r", "--support", "bad.csv", "--out", "mine")
    (tmp_path / "short.csv").write_text("age,dose\n60,1\n")
    assert "no column 'score'" in fails(1, "adapt", "r", "--support", "short.csv", "--out", "mine")


def test_another_table_is_measured_in_the_units_of_the_run(trained_on_rows: RunFolder, rbml: Callable) -> None:
    """Its rows have another mean and deviation, by which they must not be standardised."""
    own = trained_on_rows.setting()
    other = write(Path("other.csv"), 12, seed=5)
    text = other.read_text().splitlines()
    other.write_text("\n".join([text[0], *(line.replace(",6", ",96", 1) for line in text[1:])]) + "\n")
    tasks = tasks_of(trained_on_rows, "test", None, data=f"table:{other.absolute()}")
    assert tasks.modality.spec() == own.modality.spec() and tasks.target.spec == own.target.spec
    result = rbml("evaluate", str(trained_on_rows.path), "--tasks", f"table:{other}", "--episodes", "4", "--json")
    assert result.code == 0, result.err
    assert "other.csv" in json.loads(result.out)["about"]
