from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rbml.data.inputs import ALL, Table
from rbml.data.inputs.rows import read_rows
from rbml.errors import DataError, UsageError

TABLE = Table(["age", "dose"], [50.0, 2.0], [10.0, 0.5], ["score"])


def written(folder: Path, text: str) -> Path:
    path = folder / "my.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_support_file_and_a_file_to_predict(tmp_path: Path, separator: str) -> None:
    text = '\ufeffscore,age,note,dose\n3,60,"a, b",1.5\n\n4,40,c,3\n'
    path = written(tmp_path, text if separator == "," else text.replace(",", separator))
    found = TABLE.find([path], labelled=True)
    assert found.labels == [(3.0,), (4.0,)] and list(found.names) == [f"{path}:2", f"{path}:4"]
    assert TABLE.ready(TABLE.read(found.raw)).tolist() == [[1, -1], [-1, 2]]
    assert TABLE.find([path, path], labelled=False).labels is None
    assert len(TABLE.find([path, path], labelled=False).raw) == 4


def test_rows_may_be_mappings_or_numbers() -> None:
    same = TABLE.read([{"dose": 1.5, "age": 60}]), TABLE.read([[60, 1.5]]), TABLE.read(np.array([[60, 1.5]]))
    assert all(torch.equal(one, same[0]) for one in same) and same[0].dtype == torch.float64
    with pytest.raises(DataError, match="row 1 has 3 numbers for 2 columns"):
        TABLE.read([[1, 2, 3]])
    with pytest.raises(DataError, match="row 2 has no column 'dose': it has age"):
        TABLE.read([{"dose": 1.5, "age": 60}, {"age": 1}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has nothing in it"),
        ("score,age,dose\n", "has no rows below its header"),
        ("score,age\n1,2\n", "has no column 'dose': it has score, age"),
        ("age,dose\n1,2\n", "has no column 'score'"),
        ("score,age,dose\n1,2,3\n\n1,old,3\n", r"my.csv:4 has 'old' in the column 'age': expected a finite number"),
        ("score,age,dose\n1,,3\n", r"my.csv:2 has nothing in the column 'age'"),
        ("score,age,dose\nnan,1,3\n", r"my.csv:2 has 'nan' in the column 'score'"),
        ("score,age,dose\n1,2\n", r"my.csv:2 has 2 cells, but the header has 3"),
        ("age,age,dose\n1,2,3\n", r"my.csv:1 names the column 'age' twice"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TABLE.find([written(tmp_path, text)], labelled=True)


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read_rows(tmp_path / "picture.png")
    with pytest.raises(DataError, match="no file was named"):
        TABLE.find([], labelled=False)


def test_training_rows_become_standard() -> None:
    values = np.random.default_rng(0).normal(5, 3, (50, 3))
    values[:, 1] = 0.1
    table = Table.fitted(["a", "b", "c"], values, ["y"])
    ready = table.ready(table.read(values))
    assert ready.dtype == torch.float32 and torch.allclose(ready.mean(0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(ready.std(0, correction=0), torch.tensor([1.0, 0.0, 1.0]), atol=1e-6)
    stacked = table.read(values).view(5, 10, 3)
    assert torch.equal(table.ready(stacked), ready.view(5, 10, 3)), "any leading dimensions"


def test_it_says_how_to_make_it_again_and_what_a_model_must_know() -> None:
    assert ALL[TABLE.kind](**TABLE.spec()) == TABLE and TABLE.facts() == {"inputs": 2}
    shown = TABLE.show(TABLE.read([[60, 1.5]]))
    assert shown.kind == "table" and shown.values == [{"age": 60.0, "dose": 1.5}]


def test_tables_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="1 columns, 2 means"):
        Table(["a"], [0, 1], [1])
    with pytest.raises(UsageError, match="above zero"):
        Table(["a"], [0], [0])
