"""``rbml rate`` on a user's files: what it prints and writes, and what it refuses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

QUICK = ("--halvings", 1, "--changes", 3)


def table(path: Path, rows: int = 48) -> Path:
    """Write rows of two classes, of which the lines 12 and 22 are of the wrong one."""
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    lines = []
    for at, (a, b) in enumerate(x.tolist()):
        up = at % 2 == 0
        kind = up != (at in (10, 20))  # below the header, counted from 1
        lines.append(f"{a + (4 if up else -4):.3f},{b:.3f},{'up' if kind else 'down'},{a:.3f}")
    path.write_text("\n".join(["a,b,kind,price", *lines]) + "\n")
    return path


def test_the_worst_rows_of_a_table_are_printed_with_their_lines_and_all_are_written(
    rbml: Callable, tmp_path: Path
) -> None:
    file, out = table(tmp_path / "table.csv"), tmp_path / "rated.csv"
    result = rbml("rate", file, "--target", "kind", "--out", out, *QUICK)
    assert result.code == 0, result.err
    assert "table.csv:12" in result.out and "table.csv:22" in result.out
    assert "2 of 48 labels are probably wrong" in result.out and "errors are random" in result.out
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 48 and [row["number"] for row in rows[:2]] in (["11", "21"], ["21", "11"])
    assert rows[0]["label"] == "down" and rows[0]["suggested"] == "up" and rows[0]["disagrees"] == "yes"
    assert all(0 <= float(row["weight"]) <= 1 and 0 <= float(row["right"]) <= 1 for row in rows)


def test_json_says_the_same(rbml: Callable, tmp_path: Path) -> None:
    result = rbml("rate", table(tmp_path / "table.csv"), "--target", "kind", "--json", "--show", 1, *QUICK)
    found = json.loads(result.out)
    assert found["wrong"] == 2 and found["examples"] == 48 and len(found["rows"]) == 1
    assert found["rows"][0]["suggested"] == "up"


def test_what_cannot_be_rated_is_refused_with_what_to_do(rbml: Callable, tmp_path: Path) -> None:
    file = table(tmp_path / "table.csv")
    result = rbml("rate", file, "--target", "price")
    assert result.code != 0 and "column 'kind'" in result.err  # the other column is no number
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("a,y\n" + "\n".join(f"{at},{at / 2}" for at in range(20)))
    result = rbml("rate", numbers, "--target", "y")
    assert result.code == 2 and "holds numbers" in result.err and "--classes" in result.err
    one = tmp_path / "one.csv"
    one.write_text("a,y\n" + "\n".join(f"{at},x" for at in range(20)))
    result = rbml("rate", one, "--target", "y")
    assert result.code == 1 and "only one class" in result.err
    few = tmp_path / "few.csv"
    few.write_text("a,y\n1,p\n" + "\n".join(f"{at},{'x' if at % 2 else 'z'}" for at in range(20)))
    result = rbml("rate", few, "--target", "y")
    assert result.code == 1 and "fewer than 4 examples of the class 'p' (1)" in result.err
    bad = tmp_path / "bad.csv"
    bad.write_text("a,y\n1,x\nfoo,z\n")
    result = rbml("rate", bad, "--target", "y")
    assert result.code == 1 and "bad.csv:3" in result.err
    result = rbml("rate", "digitz")
    assert result.code == 1 and "known source" in result.err and "digits" in result.err
    result = rbml("rate", "digits", "--target", "y")
    assert result.code == 2 and "leave them out" in result.err
    result = rbml("rate", file, "--target", "kind", "--pictures", tmp_path / "worst.html", *QUICK)
    assert result.code == 2 and "no pictures" in result.err


def test_pictures_of_a_known_source_are_rated_and_drawn(
    rbml: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rbml import data
    from rbml.data import Labelled
    from rbml.data.inputs import Pictures
    from rbml.errors import UsageError

    pytest.importorskip("matplotlib")
    x = torch.randint(0, 60, (24, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[::2, :, :4] += 150
    x[1::2, :, 4:] += 150
    y = torch.arange(24) % 2
    y[5] = 0

    def load(part: str, root: object = None, *, split: str | None = None, seed: int = 0) -> Labelled:
        """Load half bright pictures."""
        if part != "test":
            raise UsageError("only test")
        return Labelled(x, y, ["top", "bottom"], "half bright", Pictures(8))

    monkeypatch.setitem(data.ALL, "halves", load)
    page = tmp_path / "worst.html"
    result = rbml("rate", "halves", "--pictures", page, *QUICK)
    assert result.code == 0, result.err
    assert "halves test 5" in result.out and "1 of 24 labels are probably wrong" in result.out
    assert "data:image/svg+xml" in page.read_text()
