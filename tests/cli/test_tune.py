"""``rbml tune`` from a table to predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from rbml.errors import DataError, UsageError
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


@pytest.mark.parametrize(
    ("mean", "interval", "said"),
    [
        (0.2, 0.1, "The tuned loss is lower by 0.2 ± 0.1 (95 % interval"),
        (-0.2, 0.1, "The tuned loss is higher by 0.2 ± 0.1"),
        (0.01, 0.1, "The losses differ by 0.01 ± 0.1 (95 % interval, over examples and starts), which may be chance."),
    ],
)
def test_it_says_whether_tuning_was_better_by_more_than_chance(mean: float, interval: float, said: str) -> None:
    from rbml.cli.tune import compared
    from rbml.training.tune.tuning import Gain

    assert said in compared(Gain(mean, interval))


def test_columns_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = table(tmp_path / "table.csv")
    with pytest.raises(DataError, match="no column 'cost'"):
        read(file, "cost")
    with pytest.raises(DataError, match="in the column 'kind'"):
        read(file, "price")
    with pytest.raises(DataError, match=r"no column of texts .* name it: --target price"):
        read(file)


def test_a_column_of_numbers_with_a_mistake_is_not_taken_for_classes(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_text("\n".join(["a,b", *(f"{row},{row / 2}" for row in range(20)), "3,n/a"]))
    with pytest.raises(DataError, match=r"table\.csv:22 has 'n/a' in the column 'b', where most rows have numbers"):
        read(file, "b")
    assert len(read(file, "b", classes=True).names) == 21


def test_a_known_source_is_tuned_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rbml import data
    from rbml.cli.tune import command
    from rbml.data import Labelled
    from rbml.data.inputs import Pictures
    from rbml.training.adapted_file import load_adapted

    x = torch.randint(0, 60, (24, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[::2, :, :4] += 150
    y = torch.arange(24) % 2

    def load(part: str, root: object = None, *, split: str | None = None, seed: int = 0) -> Labelled:
        """Load half bright pictures."""
        if part == "val":
            raise UsageError("no val")
        return Labelled(x, y, [f"{part} top", f"{part} bottom"], "half bright", Pictures(8))

    monkeypatch.setitem(data.ALL, "halves", load)
    found = read("halves")
    assert found.names == ["train top", "train bottom", "test top", "test bottom"]
    assert found.examples.x.shape == (48, 1, 8, 8) and found.places[24] == "halves test 0"
    out = tmp_path / "model.rbml"
    arguments = f"halves --out {out} --seconds 1 --steps 4 --starts 1 --how online"
    result = CliRunner().invoke(command, arguments.split(), catch_exceptions=False)
    assert result.exit_code == 0 and "29 examples to train on" in result.output
    file = load_adapted(out)
    assert file.names == found.names and file.adapted(found.examples.x[:3]).shape == (3, 4)
    with pytest.raises(UsageError, match="for tables, and halves is a known source"):
        read("halves", "y")
    with pytest.raises(DataError, match="neither a file or folder nor a known source"):
        read("halfs")
