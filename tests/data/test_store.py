from __future__ import annotations

import gc
import hashlib
import logging
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from rbml.data import store
from rbml.data.store import fetch  # taken before the fixture of conftest replaces it
from rbml.errors import DataError

CONTENT = b"twelve bytes"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "file.bin").write_bytes(CONTENT)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web"))) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/file.bin"
        running.shutdown()
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # pooch leaves the connection of a failed download open


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_find_prefers_the_argument_to_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "two" / "set.txt").touch()
    assert store.find("set.txt") is None
    monkeypatch.setenv("RBML_DATA", str(tmp_path / "two"))
    assert store.find("set.txt") == tmp_path / "two" / "set.txt"
    assert store.find("set.txt", tmp_path / "one") is None
    assert store.find("set.txt", str(tmp_path / "two")) == tmp_path / "two" / "set.txt"


@pytest.mark.parametrize("by_argument", [True, False])
def test_a_root_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_argument: bool) -> None:
    gone = tmp_path / "gone"
    monkeypatch.setenv("RBML_DATA", str(gone))
    with pytest.raises(DataError, match=r"gone.*--data-root" if by_argument else r"gone.*\$RBML_DATA"):
        store.find("set.txt", gone if by_argument else None)


def test_need_says_what_where_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        store.need("sets/x.npz", tmp_path, "It comes from Mars.")
    assert all(part in str(caught.value) for part in ("sets/x.npz", str(tmp_path), "Mars", "--data-root", "$RBML_DATA"))
    with pytest.raises(DataError, match="neither --data-root nor"):
        store.need("sets/x.npz", None, "")


def test_cache_dir_follows_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RBML_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert store.cache_dir() == Path("/one")
    monkeypatch.delenv("RBML_CACHE")
    assert store.cache_dir() == Path("/two/rbml")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_dir() == Path.home() / ".cache" / "rbml"


def test_fetch_downloads_once(server: str, cache: Path, tmp_path: Path) -> None:
    path = fetch("set/file.bin", server, sha(CONTENT))
    assert path == cache / "downloads" / "set" / "file.bin"
    assert path.read_bytes() == CONTENT
    (tmp_path / "web" / "file.bin").unlink()
    assert fetch("set/file.bin", server, sha(CONTENT)) == path


def test_fetch_refuses_a_wrong_checksum(server: str, cache: Path) -> None:
    with pytest.raises(DataError, match="hash") as caught:
        fetch("set/file.bin", server, sha(b"other"))
    assert "--data-root" in str(caught.value)
    assert caught.value.__suppress_context__
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_fetch_reports_a_network_failure(server: str, cache: Path) -> None:
    with pytest.raises(DataError, match="404") as caught:
        fetch("set/gone.bin", server.replace("file", "gone"), sha(CONTENT))
    assert server.replace("file", "gone") in str(caught.value)
    assert str(cache / "downloads" / "set" / "gone.bin") in str(caught.value)


class Counting:
    """Builds arrays and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"x": np.arange(5, dtype=np.uint8), "names": np.array(["a", "bc"])}


def test_arrays_are_built_once(cache: Path) -> None:
    build = Counting()
    for _ in range(3):
        arrays = store.cached_arrays("a key/with: signs", build)
        assert arrays["x"].tolist() == [0, 1, 2, 3, 4] and arrays["x"].dtype == np.uint8
        assert arrays["names"].tolist() == ["a", "bc"]
    assert build.calls == 1
    assert [path.name for path in (cache / "arrays").iterdir()] == ["a_key_with__signs.npz"]  # and no temporary file


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "another format"])
def test_a_damaged_cache_file_is_built_anew(cache: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    build = Counting()
    store.cached_arrays("key", build)
    path = cache / "arrays" / "key.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[content.index(bytes([0, 1, 2, 3, 4]))] = 9
    if damage == "another format":
        np.save(path.with_suffix(".npy"), np.arange(3))
        content = bytearray(path.with_suffix(".npy").read_bytes())
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2]}.get(damage, content))
    with caplog.at_level(logging.WARNING):
        assert store.cached_arrays("key", build)["x"].tolist() == [0, 1, 2, 3, 4]
    assert build.calls == 2 and "key.npz" in caplog.text
    store.cached_arrays("key", build)
    assert build.calls == 2


def test_a_cache_that_cannot_be_written_is_gone_without(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.write_text("a file where the folder should be")
    build = Counting()
    with caplog.at_level(logging.WARNING):
        assert store.cached_arrays("key", build)["x"].tolist() == [0, 1, 2, 3, 4]
    assert "cannot be written" in caplog.text


def test_a_full_disk_leaves_no_half_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert store.cached_arrays("key", Counting())["x"].tolist() == [0, 1, 2, 3, 4]
    assert list((cache / "arrays").iterdir()) == []


def test_a_failing_build_is_not_hidden(cache: Path) -> None:
    def fail() -> dict[str, np.ndarray]:
        raise DataError("no such archive")

    with pytest.raises(DataError, match="no such archive"):
        store.cached_arrays("key", fail)


def test_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    before = store.stamp(path)
    assert store.stamp(path) == before
    path.write_text("three")
    assert store.stamp(path) != before
