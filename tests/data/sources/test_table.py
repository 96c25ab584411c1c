from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rbml import data
from rbml.errors import DataError, UsageError


def written(folder: Path, groups: int = 10, rows: int = 3, bad: str = "") -> Path:
    """Write ``groups`` groups of rows: two inputs, a time and two targets."""
    lines = ["machine,heat,day,wear,noise,load"]
    for row in range(rows):
        lines += [f"m{group},{group}.5,{10 - row},{row},{-row},{group * row}" for group in range(groups)]
    path = folder / "machines.csv"
    path.write_text("\n".join([*lines, bad]), encoding="utf-8")
    return path


def test_groups_are_divided_by_a_seeded_shuffle(tmp_path: Path) -> None:
    path = written(tmp_path)
    given = {"group": "machine", "target": "wear"}
    parts = {part: data.load(f"table:{path}", part, seed=1, **given) for part in data.PARTS}
    assert [len(parts[part].names) for part in data.PARTS] == [6, 2, 2]
    assert sorted(name for part in parts.values() for name in part.names) == [f"m{index}" for index in range(10)]
    assert data.load(f"table:{path}", "test", seed=2, **given).names != parts["test"].names
    assert len({part.modality for part in parts.values()}) == 1, "all are standardised by the training rows"
    assert "group" in parts["val"].about and str(path) in parts["val"].about


def test_columns_have_one_purpose_each(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = data.load("table", "train", path, group="machine", target="wear, noise", order="day")
    assert found.modality.columns == ("heat", "load") and tuple(found.columns) == ("wear", "noise")
    assert found.y.shape == (18, 2) and torch.equal(found.y[:, 0], -found.y[:, 1])
    assert torch.equal(found.order, 10 - found.y[:, 0].double())
    own = found.x[:, 0][found.groups == 0]
    assert own.tolist() == [float(found.names[0][1:]) + 0.5] * 3
    one = data.load("table", "train", path, group="machine", target="wear", inputs="load")
    assert one.x.shape == (18, 1) and one.order is None


def test_targets_are_scaled_by_the_training_rows(tmp_path: Path) -> None:
    given = {"group": "machine", "target": "load,wear", "seed": 1}
    parts = {part: data.load(f"table:{written(tmp_path)}", part, **given) for part in data.PARTS}
    scaled = parts["train"].target.scaled(parts["train"].y)
    assert torch.allclose(scaled.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(scaled.std(0, correction=0), torch.ones(2), atol=1e-6)
    assert parts["train"].y[:, 1].unique().tolist() == [0, 1, 2], "in the units of the file"
    assert parts["test"].target.spec == parts["val"].target.spec == parts["train"].target.spec != {}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = written(tmp_path)
    with pytest.raises(UsageError, match="--group and --target; it has machine, heat, day, wear, noise, load"):
        data.load(f"table:{path}", "train")
    with pytest.raises(DataError, match="no column 'mashine'"):
        data.load(f"table:{path}", "train", group="mashine", target="wear")
    with pytest.raises(UsageError, match="'wear' is the group or a target"):
        data.load(f"table:{path}", "train", group="machine", target="wear", inputs="wear,heat")
    with pytest.raises(UsageError, match="table:FILE"):
        data.load("table", "train")


def test_rows_that_cannot_be_used(tmp_path: Path) -> None:
    given = {"group": "machine", "target": "wear", "seed": 0}
    with pytest.raises(DataError, match=r"machines.csv:32 has 'hot' in the column 'heat'"):
        for part in data.PARTS:
            data.load(f"table:{written(tmp_path, bad='m0,hot,1,1,1,1')}", part, **given)
    with pytest.raises(DataError, match=r"machines.csv:32 is empty in the column 'machine'"):
        data.load(f"table:{written(tmp_path, bad=',1,1,1,1,1')}", "train", **given)
    with pytest.raises(DataError, match="has 1 group, but at least 5"):
        data.load(f"table:{written(tmp_path, groups=1)}", "train", **given)
