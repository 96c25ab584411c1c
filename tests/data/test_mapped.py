"""Examples in a file of the cache folder: read once, mapped, gone on with, read anew when they change."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rbml.data import mapped
from rbml.data.mapped import kept
from rbml.data.progress import watched
from rbml.errors import DataError

ALL = torch.arange(10 * 6).remainder(251).to(torch.uint8).view(10, 2, 3)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RBML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped, "BLOCK", 4)
    return tmp_path / "cache"


def reading(log: list[tuple[int, int]], stop_at: int = 99) -> Callable[[int, int], Tensor]:
    def read(start: int, stop: int) -> Tensor:
        if start >= stop_at:
            raise KeyboardInterrupt
        log.append((start, stop))
        return ALL[start:stop]

    return read


def test_it_is_read_once_and_a_change_does_not_reach_the_file() -> None:
    log: list[tuple[int, int]] = []
    told: list[tuple[str, int, int]] = []
    with watched(lambda *what: told.append(what)):
        first = kept("some", "a", 10, (2, 3), reading(log))
    assert torch.equal(first, ALL) and log == [(0, 4), (4, 8), (8, 10)]
    assert told == [("pictures", 4, 10), ("pictures", 8, 10), ("pictures", 10, 10)]
    first[:] = 0
    assert torch.equal(kept("some", "a", 10, (2, 3), reading(log)), ALL) and len(log) == 3
    kept("some", "b", 10, (2, 3), reading(log))
    assert len(log) == 6


def test_an_interrupted_reading_goes_on_where_it_stopped() -> None:
    log: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        kept("some", "a", 10, (2, 3), reading(log, stop_at=8))
    assert torch.equal(kept("some", "a", 10, (2, 3), reading(log)), ALL)
    assert log == [(0, 4), (4, 8), (8, 10)]


def test_all_blocks_are_looked_at_before_a_bad_one_is_named() -> None:
    def read(start: int, stop: int) -> Tensor:
        if start < 8:
            raise DataError(f"picture {start} is bad.")
        return ALL[start:stop]

    with pytest.raises(DataError, match=r"picture 0 is bad\. Others like this are in 1 more blocks of 4\."):
        kept("some", "a", 10, (2, 3), read)
    assert torch.equal(kept("some", "a", 10, (2, 3), reading([])), ALL)


def test_without_a_cache_everything_is_read_into_memory(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    own_cache.write_text("a file in the way")
    with caplog.at_level(logging.WARNING):
        assert torch.equal(kept("some", "a", 10, (2, 3), reading([])), ALL)
    assert "all 10 examples are read into memory" in caplog.text
