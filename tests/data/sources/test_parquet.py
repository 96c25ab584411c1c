"""Pictures in Parquet and Arrow files."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rbml import data
from rbml.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
ipc = pytest.importorskip("pyarrow.ipc")

CLASSES = 6


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBML_CACHE", str(tmp_path / "cache"))


def png(row: int) -> bytes:
    out = BytesIO()
    Image.fromarray(np.full((9, 9, 3), 5 * row, np.uint8)).save(out, "PNG")
    return out.getvalue()


def table(bad: tuple[int, ...] = (), named: bool = False) -> Any:
    """Thirty rows of six classes, as the library datasets writes them."""
    pictures = [{"bytes": b"nothing" if row in bad else png(row), "path": None} for row in range(30)]
    found = pa.table({"image": pictures, "label": [row % CLASSES for row in range(30)]})
    if not named:
        return found
    info = {"info": {"features": {"label": {"names": [f"kind {label}" for label in range(CLASSES)]}}}}
    return found.replace_schema_metadata({"huggingface": json.dumps(info)})


def every(path: Path, **options: Any) -> dict[str, list[int]]:
    """Return the brightness of all pictures by class, whatever the part."""
    found: dict[str, list[int]] = {}
    for part in ("train", "val", "test"):
        loaded = data.load(f"parquet:{path}", part, size=9, channels=3, **options)
        assert loaded.x.shape[1:] == (3, 9, 9) and loaded.x.dtype == torch.uint8
        for label, name in enumerate(loaded.names):
            assert name not in found
            found[name] = sorted(loaded.x[loaded.y == label, 0, 0, 0].tolist())
    return found


def truth(name: str = "{}") -> dict[str, list[int]]:
    return {name.format(label): [5 * row for row in range(30) if row % CLASSES == label] for label in range(CLASSES)}


def test_every_row_is_in_one_part_with_its_class(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "all.parquet", row_group_size=7)
    assert every(tmp_path / "all.parquet") == truth()


def test_a_folder_of_files_and_the_names_of_classes(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for at in range(3):
        pq.write_table(table(named=True).slice(10 * at, 10), tmp_path / "set" / f"{at}.parquet")
    assert every(tmp_path / "set") == truth("kind {}")


@pytest.mark.parametrize("writer", ["new_file", "new_stream"])
def test_arrow_files_and_streams(tmp_path: Path, writer: str) -> None:
    with pa.OSFile(str(tmp_path / "all.arrow"), "wb") as file, getattr(ipc, writer)(file, table().schema) as out:
        out.write_table(table())
    assert every(tmp_path / "all.arrow") == truth()


def test_plain_bytes_and_other_columns(tmp_path: Path) -> None:
    rows = {"photo": [png(row) for row in range(30)], "kind": [f"no. {row % CLASSES}" for row in range(30)]}
    pq.write_table(pa.table(rows), tmp_path / "all.parquet")
    assert every(tmp_path / "all.parquet", image="photo", label="kind") == truth("no. {}")


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    pq.write_table(table(bad=tuple(range(24))), path)
    with pytest.raises(DataError, match=r"rows \d+, \d+, \d+ and \d+ more: remove these rows"):
        every(path)
    pq.write_table(table().rename_columns(["image", "class"]), path)
    with pytest.raises(DataError, match=r"no column 'label', only image, class"):
        every(path)
    pq.write_table(pa.table({"image": [png(0)] * 30, "label": [0.5] * 30}), path)
    with pytest.raises(DataError, match=r"row 0: the label is 0\.5"):
        every(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        every(path)
    (tmp_path / "empty").mkdir()
    for place, message in ((tmp_path / "empty", "has no such files"), (tmp_path / "none.parquet", "does not exist")):
        with pytest.raises(DataError, match=message):
            every(place)
    with pytest.raises(UsageError, match="needs a file or a folder"):
        data.load("parquet", "train")
