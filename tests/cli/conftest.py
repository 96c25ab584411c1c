"""What the tests of the commands share: the command in this process, pictures of twelve classes, and a run on them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from rbml.cli.main import cli
from rbml.training import RunFolder

pillow = pytest.importorskip("PIL.Image", reason="the commands read pictures")

_OPTIONS = "--ways 3 --queries 2 --size 12 --filters 4 --tasks 2 --meta-steps 4 --validate-every 2 --validate-tasks 3"
TINY = _OPTIONS.split()


class Result(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


def run_command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def rbml(capfd: pytest.CaptureFixture[str]) -> Command:
    """``rbml("evaluate", run, "--json")``: run a command in this process."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        code = run_command(*arguments)
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def fails(rbml: Command) -> Callable[..., str]:
    """``fails(2, "train", "glyfs")``: run a command that must fail so, in one line on stderr, and return the line."""

    def fail(code: int, *arguments: object) -> str:
        result = rbml(*arguments)
        lines = result.err.splitlines()
        assert (result.code, len(lines)) == (code, 1), result
        assert lines[0].startswith("rbml: ")
        assert "bug" not in lines[0]
        assert "Traceback" not in result.out
        return lines[0]

    return fail


def draw(folder: Path, classes: int, counts: list[int], *, colour: bool = False, seed: int = 0) -> Path:
    """Write pictures of any size and format: a rough pattern a class, with noise."""
    source = np.random.default_rng(seed)
    endings = ["png", "jpg", "bmp", "gif", "webp", "tiff"]
    number = 0
    for label in range(classes):
        shape = (4, 4, 3) if colour else (4, 4)
        pattern = (source.random(shape) > 0.5) * 180
        place = folder / f"class {label}"
        place.mkdir(parents=True)
        for index in range(counts[label % len(counts)]):
            pixels = (pattern + source.integers(0, 70, shape)).astype(np.uint8)
            width, height = (int(side) for side in source.integers(9, 60, 2))
            picture = pillow.fromarray(pixels).resize((width, height), pillow.Resampling.NEAREST)
            picture.save(place / f"{index}.{endings[number % len(endings)]}")
            number += 1
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighteen classes of four pictures: parts of 11, 3 and 4 classes; read only."""
    return draw(tmp_path_factory.mktemp("pictures") / "many", 18, [4])


@pytest.fixture(scope="session")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read only."""
    path = tmp_path_factory.mktemp("runs") / "trained"
    assert run_command("train", f"folder:{pictures}", *TINY, "--run", path) == 0
    return path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to write into: without what other tests have measured of it."""
    measured = shutil.ignore_patterns("evaluations", "calibration.json")
    return RunFolder(shutil.copytree(trained, tmp_path / "run", ignore=measured))


@pytest.fixture
def drawn() -> Callable[..., Path]:
    """``drawn(folder, classes, counts, colour=False)``: write pictures, so many of each class."""
    return draw


@pytest.fixture
def tiny() -> list[str]:
    """The options of the finished run."""
    return TINY


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own, and find no data by chance."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RBML_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RBML_DATA", raising=False)
