"""``rbml rate`` finds labels that were flipped."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from click.testing import CliRunner


def test_flipped_labels_come_first(tmp_path: Path) -> None:
    from rbml.cli.rate import command

    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    x[:, 0] += x[:, 0].sign()  # a gap between the classes
    flipped = {3, 17, 40, 55}
    kinds = ["up" if (a > 0) != (place in flipped) else "down" for place, a in enumerate(x[:, 0].tolist())]
    file, out = tmp_path / "table.csv", tmp_path / "weights.csv"
    file.write_text("\n".join(["a,b,kind", *(f"{a},{b},{k}" for (a, b), k in zip(x.tolist(), kinds, strict=True))]))
    arguments = f"{file} --target kind --out {out} --changes 6 --rounds 1 --show 2"
    result = CliRunner().invoke(command, arguments.split(), catch_exceptions=False)
    assert result.exit_code == 0
    rows = list(csv.DictReader(out.open()))
    assert {int(row["example"].rpartition(":")[2]) - 2 for row in rows[:4]} == flipped
    assert [float(row["weight"]) for row in rows] == sorted(float(row["weight"]) for row in rows)
