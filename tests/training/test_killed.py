"""A run that is killed by SIGKILL again and again ends, to the bit, as one that never was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rbml.training import RunFolder

KILLS = 30


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_was_killed_again_and_again_ends_as_one_that_never_was(
    tmp_path: Path, same: Callable[[RunFolder, RunFolder], bool]
) -> None:
    image = pytest.importorskip("PIL.Image")
    source = np.random.default_rng(0)
    for name in range(12):
        folder = tmp_path / "pictures" / f"class {name}"
        folder.mkdir(parents=True)
        for number in range(3):
            image.fromarray(source.integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / f"{number}.png")
    options = (
        "--ways 2 --queries 2 --size 8 --filters 4 --tasks 2 --meta-steps 40 --validate-every 3 --validate-tasks 2"
    )
    arguments = ["train", f"folder:{tmp_path / 'pictures'}", *options.split(), "--save-every", "2"]
    script = Path(__file__).with_name("lives.py")
    command = [sys.executable, str(script), str(tmp_path), str(KILLS), "0", *arguments]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert (report["whole"], report["end"]) == (0, 0)
    assert report["codes"].count(-9) >= 20  # a run may end before its last kills
    assert set(report["codes"]) <= {-9, 0}
    reached = report["lines"]
    assert reached[0] < 40
    assert len(set(reached)) > 4  # it died in different places
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    assert same(whole, cut)
    assert {path.name for path in cut.path.iterdir()} == {path.name for path in whole.path.iterdir()}
