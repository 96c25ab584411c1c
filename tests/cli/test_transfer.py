"""``rbml transfer``: a run per source, the same tests for all, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rbml.cli.transfer import listed, recipes
from rbml.training import RunFolder

TRAIN = "--size 12 --filters 4 --tasks 2 --meta-steps 2 --validate-every 2 --validate-tasks 2 --queries 2 --json"


def test_the_matrix_has_a_row_per_run_and_baseline(
    run: RunFolder, rbml: Callable, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = f"folder:{pictures}"
    command = [
        "transfer", "--train", f"{own}(ways=2)+{own}(ways=3, shots=2)", "--runs", run.path, "--test", f"{own},digits",
        "--episodes", "3", "--ways", "3", *TRAIN.split(),
    ]  # fmt: skip
    done = rbml(*command)
    assert done.code == 0, done
    found = json.loads(done.out)
    rows = {row["name"]: row["cells"] for row in found["rows"]}
    assert found["targets"] == [own, "digits"] and len(rows) == 4
    assert all(cell["score"]["tasks"] == 3 for cells in rows.values() for cell in cells)
    assert [cell["own"] for cell in rows[str(run.path)]] == [True, False]
    assert [one["run"] for one in found["rows"]] == [True, True, False, False]
    assert any("digits: of the runs" in one for one in found["said"])
    assert (Path("transfer") / "transfer.png").is_file()
    monkeypatch.setattr("rbml.training.curve._some", lambda *_: pytest.fail("this was measured before"))
    monkeypatch.setattr("rbml.cli.transfer_work.meta_train", lambda *_: pytest.fail("this was trained before"))
    assert json.loads(rbml(*command).out)["rows"] == found["rows"]


def test_wrong_use_is_refused_in_one_line(run: RunFolder, fails: Callable) -> None:
    assert "name sources with --train" in fails(2, "transfer", "--test", "digits")
    assert "glyfs" in fails(2, "transfer", "--train", "glyfs", "--test", "digits")


def test_sources_are_read_in_one_size() -> None:
    assert listed("glyphs(ways=3, shots=1)+omniglot,digits") == ["glyphs(ways=3, shots=1)+omniglot", "digits"]
    found = recipes(["glyphs", "grocery"], {}, (), None)
    assert {(one.inputs.size, one.inputs.channels) for one in found.values()} == {(84, 3)}
    found = recipes(["glyphs", "grocery"], {"size": 20, "channels": 1}, (), None)
    assert {(one.inputs.size, one.inputs.channels) for one in found.values()} == {(20, 1)}
