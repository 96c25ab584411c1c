"""Rows in the cache folder: for several programs, and where the file is damaged or cannot be written."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from rbml.data.kept_rows import KeptRows


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBML_CACHE", str(tmp_path))
    return tmp_path


def row(value: float) -> np.ndarray:
    return np.full(3, value, np.float32)


def test_rows_are_kept_by_their_key() -> None:
    rows = KeptRows("some: features", 3)
    assert rows.read([b"a"]) == {}
    rows.add({b"a": row(1), b"b": row(2)})
    rows.add({b"b": row(3)})
    found = KeptRows("some: features", 3).read([b"b", b"c", b"a"])
    assert sorted(found) == [b"a", b"b"] and found[b"b"].tolist() == [3, 3, 3]
    many = {bytes([place % 256, place // 256]): row(place) for place in range(1200)}
    rows.add(many)
    assert len(rows.read(list(many))) == 1200


def test_a_damaged_row_is_missing_and_a_damaged_file_is_begun_anew(caplog: pytest.LogCaptureFixture) -> None:
    rows = KeptRows("one", 3)
    rows.add({b"a": row(1), b"b": row(2)})
    with closing(sqlite3.connect(rows.path)) as file, file:
        file.execute("UPDATE rows SET numbers = ? WHERE key = ?", (row(5).tobytes(), b"a"))
    assert list(rows.read([b"a", b"b"])) == [b"b"]
    rows.path.write_bytes(b"no database, but as long as one could be" * 100)
    with caplog.at_level(logging.WARNING):
        assert rows.read([b"a"]) == {} and "begun anew" in caplog.text
    rows.add({b"a": row(4)})
    assert rows.read([b"a"])[b"a"][0] == 4
    with closing(sqlite3.connect(rows.path)) as file, file:
        file.execute("ALTER TABLE rows RENAME COLUMN numbers TO others")
    assert rows.read([b"a"]) == {}
    rows.add({b"a": row(6)})
    assert rows.read([b"a"])[b"a"][0] == 6, "and so is one of another form"


def test_a_folder_that_cannot_be_used_is_said_once(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    (own_cache / "rows").write_text("a file in the place of the folder")
    rows = KeptRows("one", 3)
    with caplog.at_level(logging.WARNING):
        rows.add({b"a": row(1)})
        rows.add({b"b": row(1)})
    assert rows.read([b"a"]) == {} and caplog.text.count("cannot be used") == 1


def test_several_programs_add_at_the_same_time() -> None:
    program = """
import sys
import numpy as np
from rbml.data.kept_rows import KeptRows
rows = KeptRows("shared", 3)
for place in range(30):
    rows.add({f"{sys.argv[1]}-{place}".encode(): np.full(3, place, np.float32)})
"""
    running = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "xy"]
    assert [one.wait() for one in running] == [0, 0]
    keys = [f"{name}-{place}".encode() for name in "xy" for place in range(30)]
    assert len(KeptRows("shared", 3).read(keys)) == 60
