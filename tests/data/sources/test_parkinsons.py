from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rbml import data
from rbml.data.sources import parkinsons
from rbml.errors import DataError


def test_patients_are_divided_by_their_numbers(data_root: Path) -> None:
    parts = {part: data.load("parkinsons", part, data_root) for part in data.PARTS}
    assert [len(parts[part].names) for part in data.PARTS] == [30, 4, 8]
    assert parts["val"].names == ["31", "32", "33", "34"] and parts["test"].names[0] == "35"
    assert sum(len(part.x) for part in parts.values()) == 5875
    assert int(torch.bincount(torch.cat([part.groups for part in parts.values()])).min()) > 0


def test_inputs_are_standard_on_training_patients_and_hold_no_score(data_root: Path) -> None:
    train = data.load("parkinsons", "train", data_root)
    assert len(train.modality.columns) == 18
    assert not {"subject#", "test_time", "motor_UPDRS", "total_UPDRS"} & set(train.modality.columns)
    ready = train.modality.ready(train.x)
    assert torch.allclose(ready.mean(0), torch.zeros(18), atol=1e-5)
    assert torch.allclose(ready.std(0, correction=0), torch.ones(18), atol=1e-5)
    test = data.load("parkinsons", "test", data_root, with_time=True)
    assert test.modality.columns[2] == "test_time" and test.modality.mean[0] == train.modality.mean[0]
    assert torch.equal(test.x[:, 2], test.order)


def test_the_first_recording(data_root: Path) -> None:
    train, motor = (data.load("parkinsons", "train", data_root, split=split) for split in (None, "motor"))
    assert float(train.y[0]) == pytest.approx(34.398) and float(motor.y[0]) == pytest.approx(28.199)
    assert train.x[0, :3].tolist() == [72, 0, 0.00662] and float(train.order[0]) == 5.6431


def test_a_file_that_is_not_there_or_another_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"UCI Machine Learning Repository, no\. 189"):
        data.load("parkinsons", "train", tmp_path)
    (tmp_path / "parkinsons").mkdir()
    (tmp_path / "parkinsons" / "parkinsons_updrs.data").write_text("subject#,age\n1,72\n")
    with pytest.raises(DataError, match="has 1 patients, but 42 were expected"):
        parkinsons.read(tmp_path)
