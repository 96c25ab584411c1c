from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rbml.training.kept import keep


def result(episodes: int, trained: int = 100, **more: Any) -> dict[str, Any]:
    return {"name": "glyphs", "episodes": episodes, "trained": trained} | more


def kept(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_more_tasks_replace_fewer_and_never_the_other_way_round(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    assert keep(path, result(50)) == ""
    assert keep(path, result(600)) == ""
    said = keep(path, result(200))
    assert "has the same measured on 600 tasks, more than these 200: remove that file" in said
    assert kept(path)["episodes"] == 600
    assert keep(path, result(600, seed=1)) == "" and kept(path)["seed"] == 1  # as many: the new one


def test_a_learner_that_was_trained_further_is_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    old = {"baselines": {"nearest centroid": 1}, "by_shots": [1]}
    keep(path, result(600, **old))
    assert keep(path, result(50, trained=200)) == ""
    assert kept(path) == result(50, trained=200, baselines=old["baselines"])  # the others are of the old learner


def test_what_cost_extra_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    keep(path, result(50, baselines={"nearest centroid": 1}))
    keep(path, result(600))
    assert kept(path)["baselines"] == {"nearest centroid": 1}
    keep(path, result(600, baselines={"nearest centroid": 2}))
    assert kept(path)["baselines"] == {"nearest centroid": 2}


def test_a_damaged_file_is_written_anew_and_what_is_no_number_is_null(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text("{")
    assert keep(path, result(5, mean=float("nan"))) == ""
    assert "NaN" not in path.read_text() and kept(path)["mean"] is None
