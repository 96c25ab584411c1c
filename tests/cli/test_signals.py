"""A real ``rbml train`` process that gets SIGINT or SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rbml.training import RunFolder, files


def begin(pictures: Path, tiny: list[str], run: Path) -> subprocess.Popen[str]:
    """Start training for longer than anyone waits, and return once steps are taken."""
    options = [*tiny, "--meta-steps", "100000", "--save-every", "100000", "--validate-every", "100000"]
    command = [sys.executable, "-m", "rbml.cli", "train", f"folder:{pictures}", *options, "--run", str(run)]
    pipe, env = subprocess.PIPE, os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)
    journal, deadline = run / "journal.jsonl", time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    number: signal.Signals, code: int, pictures: Path, tiny: list[str], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    process = begin(pictures, tiny, run.path)
    assert not run.last.exists()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    step = files.load(run.last, "checkpoint")["step"]
    assert step == list(run.lines())[-1]["step"] > 0
    assert out.splitlines()[-1] == (
        f"Stopped after step {step}; everything is saved. Resume with: rbml train --resume {run.path}"
    )
    assert "Finishing this step" in err
    assert "Traceback" not in err
    assert list(run.path.glob(".*")) == []
