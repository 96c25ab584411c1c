"""What the command line says about several processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from rbml.cli import processes
from rbml.errors import UsageError
from rbml.recipe import Recipe


class Counted(NamedTuple):
    world_size: int
    rank: int = 0


def test_processes_without_work() -> None:
    three: Any = Counted(3)
    assert processes.check_work(Recipe.of(tasks=32, chunk=8), three, begins=True) == ""
    few = Recipe.of(tasks=32, chunk=16)
    with pytest.raises(UsageError, match=r"2 chunks of 16: of 3 processes only 2 would have work.*--chunk 11"):
        processes.check_work(few, three, begins=True)
    assert "only 2 would have work" in processes.check_work(few, three, begins=False)


def test_other_commands_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from rbml.cli.main import cli

    for rank in "01":
        for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2"), ("RANK", rank)):
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli(["evaluate", "run"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith("rbml: rbml evaluate works in one process") if rank == "0" else said == ""
