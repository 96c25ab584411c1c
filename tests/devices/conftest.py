"""What the tests of devices share: the pretended device, and commands that run on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Result, draw, elsewhere, rbml
from tests.devices import pretend

from rbml.training import usual

__all__ = ["elsewhere", "rbml"]  # fixtures

OPTIONS = ["--queries", "2", "--tasks", "2", "--meta-steps", "3", "--validate-every", "2", "--validate-tasks", "3"]
PICTURES = ["--ways", "3", "--size", "12", "--filters", "4", *OPTIONS]


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The pretended device."""
    return pretend.install()


@pytest.fixture
def there(rbml: Callable[..., Result], device: torch.device) -> Callable[..., Result]:
    """``there("evaluate", run)``: run a command on the pretended device, where it must work and mix no devices."""

    def run(*arguments: object) -> Result:
        with pretend.measured() as record:
            result = rbml(*arguments, "--device", pretend.NAME)
        assert result.code == 0, result
        assert not record.mixed
        assert record.ran and f"computing on {device}" in result.err
        return result

    return run


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure what a run is used to on three tasks: every operator is slow on a device that is only pretended."""
    monkeypatch.setattr(usual, "measured", partial(usual.measured, count=3))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen classes of four pictures; read only."""
    return draw(tmp_path_factory.mktemp("pictures") / "many", 18, [4])


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own pictures: three classes of three; read only."""
    return draw(tmp_path_factory.mktemp("mine") / "mine", 3, [3], seed=3)


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, computed on the processor; read only."""
    from tests.cli.conftest import run_command

    path = tmp_path_factory.mktemp("runs") / "trained"
    assert run_command("train", f"folder:{pictures}", *PICTURES, "--keep-best", "2", "--run", path) == 0
    return path
