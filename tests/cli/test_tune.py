"""``rbml tune`` from a table to predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from rbml.errors import DataError
from rbml.predictor import Predictor
from rbml.training.tune.job_data import read


def table(path: Path, rows: int = 40) -> Path:
    x = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0))
    lines = [f"{a:.4f},{b:.4f},{'up' if a > 0 else 'down'},{30 + 5 * a + b:.4f}" for a, b in x.tolist()]
    path.write_text("\n".join(["a,b,kind,price", *lines]) + "\n")
    return path


@pytest.mark.parametrize("target", ["kind", "price"])
def test_a_table_becomes_a_file_that_predicts(target: str, tmp_path: Path) -> None:
    from rbml.cli.tune import command

    file, out = table(tmp_path / "table.csv"), tmp_path / "model.rbml"
    text = file.read_text()
    other = "price" if target == "kind" else "kind"
    place = text.splitlines()[0].split(",").index(other)
    rows = [[cell for at, cell in enumerate(line.split(",")) if at != place] for line in text.splitlines()]
    file.write_text("\n".join(map(",".join, rows)))
    arguments = f"{file} --target {target} --out {out} --seconds 1 --steps 8 --starts 1 --how online"
    result = CliRunner().invoke(command, arguments.split(), catch_exceptions=False)
    assert result.exit_code == 0 and "the usual settings" in result.output
    (record,) = Predictor.load(out)([{"a": "2.0", "b": "0.0"}]).records
    assert ("class" in record) if target == "kind" else (25 < record["value"] < 55)
    assert not out.with_name("model.rbml.tuning").exists()


def test_columns_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = table(tmp_path / "table.csv")
    with pytest.raises(DataError, match="no column 'cost'"):
        read(file, "cost")
    with pytest.raises(DataError, match="in the column 'kind'"):
        read(file, "price")
