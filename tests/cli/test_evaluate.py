"""``rbml evaluate``: its table, its JSON, other sources, other ways."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rbml import algorithms
from rbml.data.targets.classes import ACCURACY
from rbml.recipe import build
from rbml.tasks import generator, task_seeds
from rbml.training import RunFolder, files
from rbml.training.ensemble import Ensemble


def test_json_holds_the_accuracy_after_every_step(run: RunFolder, rbml: Callable) -> None:
    result = rbml("evaluate", run.path, "--episodes", "5", "--steps", "2", "--seed", "3", "--json")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    learner, tasks = run.learner(), build.tasks(run.recipe(), "test")
    for which in ("transductive", "inductive"):
        truth = learner.evaluate(tasks.draw(task_seeds(5, generator(3, 2))), which, 2).accuracy
        assert truth is not None
        means = [score["mean"] for score in found["accuracy"][which]]
        assert means == pytest.approx(truth.mean(0).tolist())
        widths = [score["interval"] for score in found["accuracy"][which]]
        assert widths == pytest.approx((1.96 * truth.std(0) / 5**0.5).tolist())
    assert {name: found[name] for name in ("ways", "shots", "queries", "episodes", "seed", "part")} == {
        "ways": 3, "shots": 1, "queries": 2, "episodes": 5, "seed": 3, "part": "test",
    }  # fmt: skip
    kept = list((run.path / "evaluations").iterdir())
    assert len(kept) == 1
    assert json.loads(kept[0].read_text()) == found


def test_the_table_has_a_row_a_step_and_both_kinds_side_by_side(run: RunFolder, rbml: Callable) -> None:
    found = json.loads(rbml("evaluate", run.path, "--episodes", "9", "--json").out)["accuracy"]
    result = rbml("evaluate", run.path, "--episodes", "9")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert "part test" in lines[0]
    assert "3-way 1-shot, 2 queries per class, 9 tasks" in lines[1]
    rows = [line.replace("│", " ").split() for line in lines if line.startswith("│")]
    expected = [
        [str(step)]
        + [part for which in ("transductive", "inductive") for part in _percent(found[which][step])]
        for step in range(2)
    ]  # fmt: skip
    assert rows == expected
    assert all(len(line) <= 80 for line in lines[1:])


def _percent(score: dict[str, float]) -> list[str]:
    return [f"{100 * score['mean']:.1f}", "±", f"{100 * score['interval']:.1f}"]


def test_other_ways_shots_parts_and_checkpoints(run: RunFolder, rbml: Callable) -> None:
    options = "--episodes 3 --ways 2 --shots 2 --queries 1 --part val --which last --json"
    found = json.loads(rbml("evaluate", run.path, *options.split()).out)
    assert (found["ways"], found["shots"], found["queries"], found["part"]) == (2, 2, 1, "val")
    assert "part val" in found["about"]
    rbml("evaluate", run.path, "--episodes", "3", "--ways", "2", "--shots", "2")
    assert len(list((run.path / "evaluations").iterdir())) == 2  # one part does not overwrite another


def test_of_a_foreign_folder_all_classes_are_used(
    run: RunFolder, rbml: Callable, fails: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    foreign = drawn(tmp_path / "foreign", 6, [4], seed=1)
    found = json.loads(
        rbml("evaluate", run.path, "--episodes", "3", "--tasks", "folder:foreign", "--ways", "6", "--json").out
    )
    assert (found["ways"], found["part"], found["tasks"]) == (6, "all", f"folder:{foreign}")
    assert "6 classes" in found["about"]
    line = fails(2, "evaluate", run.path, "--tasks", "folder:foreign", "--part", "test", "--ways", "2")
    assert "the data has 1" in line  # asked for by name, the test part it is


def test_of_a_divided_folder_the_test_part_is_used(
    run: RunFolder, rbml: Callable, drawn: Callable[..., Path], tmp_path: Path
) -> None:
    for part in ("train", "val", "test"):
        drawn(tmp_path / part, 3, [3])
        for label in range(3):
            (tmp_path / part / f"class {label}").rename(tmp_path / part / f"{part} {label}")
    divided = tmp_path / "divided"
    divided.mkdir()
    for part in ("train", "val", "test"):
        (tmp_path / part).rename(divided / part)
    found = json.loads(rbml("evaluate", run.path, "--episodes", "2", "--tasks", f"folder:{divided}", "--json").out)
    assert found["part"] == "test"
    assert "part test (its own division)" in found["about"]


def test_a_run_on_its_own_folder_is_judged_on_classes_it_never_saw(run: RunFolder, rbml: Callable) -> None:
    source = run.recipe().data[0].source
    found = json.loads(rbml("evaluate", run.path, "--episodes", "2", "--tasks", source, "--json").out)
    assert found["part"] == "test"


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_fail(run: RunFolder, rbml: Callable) -> None:
    (run.path / "evaluations").write_text("in the way")
    result = rbml("evaluate", run.path, "--episodes", "2", "--json")
    assert result.code == 0
    assert json.loads(result.out)
    assert result.err.startswith("rbml: not kept for the report: ")


REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the data sets are not at {REAL}")
@pytest.mark.parametrize(("source", "ways"), [("digits", 7), ("quickdraw", 10)])
def test_real_sources(
    source: str, ways: int, pictures: Path, rbml: Callable, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBML_DATA", str(REAL))
    if source == "digits":
        pytest.importorskip("sklearn")
    assert rbml("train", f"folder:{pictures}", *tiny, "--size", "28", "--meta-steps", "1", "--run", "r").code == 0
    result = rbml("evaluate", "r", "--tasks", source, "--ways", ways, "--episodes", "4", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["ways"], found["tasks"], found["part"]) == (ways, source, "test")
    assert torch.tensor([score["mean"] for score in found["accuracy"]["inductive"]]).isfinite().all()


def test_baselines_are_measured_on_the_same_tasks(run: RunFolder, rbml: Callable) -> None:
    options = ("evaluate", run.path, "--episodes", "4", "--ways", "4", "--shots", "2", "--seed", "3")
    found = json.loads(rbml(*options, "--baselines", "--json").out)["baselines"]
    tasks = build.tasks(run.recipe(), "test", ways=4, shots=2)
    episodes = tasks.draw(task_seeds(4, generator(3, 2)))
    assert found["nearest centroid"]["mean"] == pytest.approx(float(algorithms.nearest_centroid(episodes).mean()))
    assert found["nearest neighbour"]["mean"] == pytest.approx(float(algorithms.nearest_neighbour(episodes).mean()))
    assert 0 <= found["from scratch"]["mean"] <= 1 and found["from scratch"]["tasks"] == 4
    shown = rbml(*options, "--baselines").out
    assert all(name in shown for name in found) and "30 steps with momentum" in shown
    assert "baselines" not in json.loads(rbml(*options, "--json").out)


def test_calibration_is_measured_with_the_temperature_of_the_validation_tasks(run: RunFolder, rbml: Callable) -> None:
    found = json.loads(rbml("evaluate", run.path, "--episodes", "3", "--json").out)["calibration"]
    kept = json.loads((run.path / "calibration.json").read_text())["validation_4"]
    assert [found["temperature"]] == [one["temperature"] for one in kept] and found["tasks"] == 3
    assert 0 <= found["before"] <= 1 and 0 <= found["after"] <= 1
    assert "calibration error (ECE, 15 bins, 3 tasks)" in rbml("evaluate", run.path, "--episodes", "3").out


def test_runs_are_measured_together(run: RunFolder, rbml: Callable, fails: Callable, tmp_path: Path) -> None:
    other = RunFolder(tmp_path / "other")
    shutil.copytree(run.path, other.path)
    kept = files.load(other.best, "best")
    for leaf in kept["learner"].values():
        if leaf.is_floating_point():
            leaf.add_(0.1 * torch.randn(leaf.shape, generator=torch.Generator().manual_seed(0)))
    files.save(other.best, "best", kept)
    found = json.loads(rbml("evaluate", run.path, "--with", other.path, "--episodes", "5", "--json").out)
    tasks = build.tasks(run.recipe(), "test").draw(task_seeds(5, generator(0, 2)))
    together = Ensemble([run.learner(), other.learner()]).evaluate(tasks, "inductive", metrics=(ACCURACY,))
    expected = together.metrics["accuracy"].mean().item()
    assert found["accuracy"]["inductive"][0]["mean"] == pytest.approx(expected)
    assert (found["ensemble"], found["with"]) == (2, "other") and "with-other" in found["name"]

    written = json.loads((other.path / "config.json").read_text())
    written["setting"]["inputs"]["spec"]["channels"] = 3
    (other.path / "config.json").write_text(json.dumps(written))
    line = fails(2, "evaluate", run.path, "--with", other.path)
    assert "channels=3" in line and "--with needs runs with the same inputs and targets" in line
    assert "leave --which out" in fails(2, "evaluate", run.path, "--with", other.path, "--which", "last")
