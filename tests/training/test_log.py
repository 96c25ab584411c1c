"""The log: journal and TensorBoard say the same, also after a resume, and a full disk is said in one line."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbml.errors import RbmlError
from rbml.training import Recipe, RunFolder
from rbml.training.log import Log


@pytest.fixture
def run(tmp_path: Path, recipe: Callable[..., Recipe]) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create(recipe(), {}, None)
    return folder


def entry(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "loss": 1 / step, "accuracy": 0.5, "seconds": 0.25} | more


def test_every_line_is_there_at_once(run: RunFolder) -> None:
    with Log(run) as log:
        log.begin(0)
        for step in (1, 2):
            log(entry(step))
            assert [json.loads(line) for line in run.journal.read_text().splitlines()][-1] == entry(step)


def curves(run: RunFolder) -> dict[str, dict[int, float]]:
    """Read the curves as TensorBoard does."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(run.tensorboard))
    found.Reload()
    return {tag: {event.step: event.value for event in found.Scalars(tag)} for tag in found.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_same_curves_also_after_going_back(run: RunFolder) -> None:
    with Log(run) as log:
        log.begin(0)
        for step in range(1, 6):
            log(entry(step, loss=-1.0))
    with Log(run) as log:
        log.begin(3)
        log(entry(4, validation=0.75))
    assert [line["step"] for line in run.lines()] == [1, 2, 3, 4]
    found = curves(run)
    assert found["loss"] == {1: -1.0, 2: -1.0, 3: -1.0, 4: 0.25}
    assert found["validation"] == {4: 0.75}
    assert set(found) == {"loss", "accuracy", "validation"}


def test_without_tensorboard_there_is_the_journal(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with Log(run) as log:
        log.begin(0)
        log(entry(1))
    assert not run.tensorboard.exists()
    assert len(list(run.lines())) == 1


class Full:
    """A file on a disk that is full."""

    def write(self, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("which", ["journal", "tensorboard"])
def test_a_full_disk_is_said_in_one_line(which: str, run: RunFolder) -> None:
    with Log(run) as log:
        log.begin(0)
        log(entry(1))
        if which == "journal":
            log.journal = Full()  # type: ignore[assignment]
        else:
            pytest.importorskip("tensorboard")
            assert log.curves is not None
            log.curves.records._writer = Full()
        with pytest.raises(
            RbmlError, match=rf"^cannot write .*/{which}\S*: No space left on device\. .*free some space"
        ):
            log(entry(2))
    assert next(run.lines())["step"] == 1
