"""Kill a training run with SIGKILL at random moments, resume it each time, and compare it with an undisturbed run.

    python benchmarks/kill.py --kills 20      # about three minutes
    python benchmarks/kill.py --kills 10 --processes 1 2 3

With ``--processes``, ``torchrun`` starts every attempt with another one of these numbers of processes, and any one of
them is killed. The undisturbed run is that of one process, and there is one more for each other number.

Every attempt is a real process: ``rbml train glyphs ... --resume FOLDER``. It is killed after a random time, anywhere
from its first moments to the middle of its steps. Since a checkpoint is written after every step, many kills happen
during saving. Prints one line per kill and the verdict; exits with 1 if a single bit differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from rbml.training import RunFolder, files

SETTINGS = "--filters 4 --tasks 4 --chunk 1 --validate-every 3 --validate-tasks 4 --save-every 1 --threads 1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--meta-steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        whole, cut = RunFolder(Path(name) / "whole"), RunFolder(Path(name) / "cut")
        command = ["rbml", "train", "glyphs", *SETTINGS.split(), "--meta-steps", str(chosen.meta_steps), "--resume"]
        different = []
        for size in sorted({1, *chosen.processes}, reverse=True):
            one = whole if size == 1 else RunFolder(Path(name) / f"by {size}")
            start, total = time_of(one, [*launched(size), *command, str(one.path)])
            parts = f"{chosen.meta_steps} outer steps in {total:.1f} s, {start:.1f} s of it before the first"
            print(f"left alone, {size} processes: {parts}", flush=True)
        for size in {*chosen.processes} - {1}:
            different += [
                f"{what} of {size} processes" for what in compare(whole, RunFolder(Path(name) / f"by {size}"))
            ]
        commands = [[*launched(size), *command, str(cut.path)] for size in chosen.processes]
        kills = kill(cut, commands, chosen.kills, start, total, random.Random(chosen.seed))
        subprocess.run(commands[-1], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        different += compare(whole, cut)
    print(f"{kills} kills; different from the run left alone: {', '.join(different) or 'nothing'}")
    enough = kills >= chosen.kills
    print("PASSED" if enough and not different else "FAILED" if different else "FAILED: it ended before the last kill")
    sys.exit(bool(different) or not enough)


def launched(size: int) -> list[str]:
    """Return how a command of so many processes begins."""
    alone, several = [sys.executable, "-m"], [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    return alone if size == 1 else [*several, str(size), "-m", "--"]


def time_of(run: RunFolder, command: list[str]) -> tuple[float, float]:
    """Run to the end; return the seconds until the first outer step was saved, and the total."""
    began = time.perf_counter()
    process = begin(command)
    await_step(run, process)
    start = time.perf_counter() - began
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return start, time.perf_counter() - began


def kill(
    run: RunFolder, commands: list[list[str]], kills: int, start: float, total: float, source: random.Random
) -> int:
    """Kill the run as often as requested or until it ends; return how often it was killed while running."""
    print("kill  after s  checkpoint  journal  what it was doing")
    for number in range(1, kills + 1):
        began = time.perf_counter()
        process = begin(commands[number % len(commands)])
        if source.random() < 1 / 3:
            time.sleep(source.uniform(0, start))
        else:  # some time after its first step, short enough for the run to last for all kills
            await_step(run, process)
            time.sleep(source.uniform(0, (total - start) / kills))
        victim = source.choice(workers(process.pid) or [process.pid])
        if process.poll() is not None:
            return number - 1
        os.kill(victim, signal.SIGKILL)
        process.wait()
        print(f"{number:4}  {time.perf_counter() - began:7.2f}  {state(run)}", flush=True)
    return kills


def workers(launcher: int) -> list[int]:
    """Return the processes that a process has started."""
    found = Path(f"/proc/{launcher}/task/{launcher}/children")
    return [int(one) for one in found.read_text().split()] if found.exists() else []


def await_step(run: RunFolder, process: subprocess.Popen[bytes]) -> None:
    """Wait until a checkpoint is written or the process ends."""

    def written() -> int:
        return run.last.stat().st_mtime_ns if run.last.exists() else 0

    before = written()
    while written() == before and process.poll() is None:
        time.sleep(0.005)


def begin(command: list[str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, env=os.environ | {"OMP_NUM_THREADS": "1"})


def state(run: RunFolder) -> str:
    """Return the state a killed process left: the steps in its checkpoint and journal, and what it was doing."""
    if not run.config.exists():
        return f"{'-':>10}  {'-':>7}  starting"
    partial = [path.name for path in run.path.glob(".*")]
    lines = run.journal.read_bytes().count(b"\n") if run.journal.exists() else 0
    saved = run.saved_step()
    doing = f"writing {partial[0]}" if partial else "saving" if lines > saved else "starting or stepping"
    return f"{saved:10}  {lines:7}  {doing}"


def compare(whole: RunFolder, cut: RunFolder) -> list[str]:
    """Return the differences between the results of two runs, bit by bit."""
    different = []
    for kind, path in (("checkpoint", "last.pt"), ("best", "best.pt")):
        ours, theirs = (dict(leaves(files.load(run.path / path, kind))) for run in (whole, cut))
        different += [f"{path}{place}" for place in ours.keys() | theirs.keys() if ours.get(place) != theirs.get(place)]
    if entries(whole) != entries(cut):
        different.append("the journal")
    left = {path.name for path in cut.path.iterdir()} ^ {path.name for path in whole.path.iterdir()}
    return [*different, *left]


def leaves(value: Any, place: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, f"{place}/{key}")]
    if isinstance(value, list | tuple):
        return [leaf for index, part in enumerate(value) for leaf in leaves(part, f"{place}/{index}")]
    if isinstance(value, torch.Tensor):
        return [(place, (value.dtype, value.shape, value.contiguous().numpy().tobytes()))]
    return [(place, repr(value))]


def entries(run: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.journal.read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


if __name__ == "__main__":
    main()
