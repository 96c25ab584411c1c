"""Contenders in processes of their own, taking turns: which are right, and how long each of them takes."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speed import contenders

TURN = 0.1
"""How many seconds a turn lasts at least: a contender that is faster computes several times."""


@dataclass
class Found:
    """What was measured of one contender.

    Attributes:
        why: the reason why there is nothing.
        first: seconds of the first call, with tracing and compiling.
        error: distance of the meta-gradient from the one in double precision, relative to its length.
        turns: seconds of one call, turn by turn.
        mib: peak memory above that before the first call.
    """

    why: str = ""
    first: float = math.nan
    error: float = math.nan
    turns: list[float] = field(default_factory=list)
    mib: float = math.nan


class Process:
    """A contender in its own process."""

    def __init__(self, row: str, name: str, dtype: str, sizes: dict[str, int], environment: dict[str, str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "grads.npz"
        command = [sys.executable, "-m", "speed.worker", row, name, dtype, str(self.file), json.dumps(sizes)]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by close()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )
        self.begun = self._answer()

    def turn(self, calls: int) -> dict[str, float]:
        """Let it compute some times, and return what it measured."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{calls}\n")
        self.process.stdin.flush()
        return self._answer()

    def grads(self) -> dict[str, Any]:
        with np.load(self.file) as found:
            return dict(found)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()
        self.errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        self.errors.seek(0)
        return {"why": (self.errors.read().strip().splitlines() or ["ended without a word"])[-1][:160]}


def environment(policy: str, threads: int | None) -> dict[str, str]:
    """Return the environment of the processes: nothing set but what is asked for."""
    left_out = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    own = {name: value for name, value in os.environ.items() if name not in left_out}
    if policy != "default":
        own["OMP_WAIT_POLICY"] = policy.upper()
    if threads is not None:
        own["OMP_NUM_THREADS"] = str(threads)
        own["XLA_FLAGS"] = (
            f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
        )
    return own


@contextmanager
def started(row: str, names: list[str], sizes: dict[str, int], around: dict[str, str]) -> Iterator[dict[str, Process]]:
    """Start the contenders one after another, so that nobody's first call is disturbed."""
    running: dict[str, Process] = {}
    try:
        for name in names:
            running[name] = Process(row, name, "float32", sizes, around)
        yield running
    finally:
        for one in running.values():
            one.close()


def truth(row: str, sizes: dict[str, int], around: dict[str, str]) -> dict[str, Any]:
    """Return the meta-gradient of the plain loop in double precision."""
    process = Process(row, "plain", "float64", sizes, around)
    try:
        if "why" in process.begun:
            raise SystemExit(f"the plain loop in double precision failed: {process.begun['why']}")
        return process.grads()
    finally:
        process.close()


def distance(grads: dict[str, Any], true: dict[str, Any]) -> float:
    """Return how far a meta-gradient is from the true one, relative to the length of that."""
    apart = sum(float(((grads[name] - leaf) ** 2).sum()) for name, leaf in true.items())
    return math.sqrt(apart / sum(float((leaf**2).sum()) for leaf in true.values()))


def measured(
    row: str, names: list[str], rounds: int, seconds: float, clock: str, sizes: dict[str, int], around: dict[str, str]
) -> dict[str, Found]:
    """Measure one row: check every contender's meta-gradient first, then let them take turns.

    Args:
        row: the problem.
        names: the contenders.
        rounds: how many turns each gets.
        seconds: how long the turns of all of them together may take; then there are fewer rounds, but at least three.
        clock: ``"wall"`` or ``"cpu"``.
        sizes: arguments of the problem in place of its own.
        around: the environment of the processes.
    """
    true, table = truth(row, sizes, around), {name: Found() for name in names}
    with started(row, names, sizes, around) as running:
        calls: dict[str, int] = {}
        for name, process in running.items():
            table[name].why = process.begun.get("why", "")
            if not table[name].why:
                table[name].first = process.begun["first"]
                table[name].error = distance(process.grads(), true)
                if not table[name].error <= process.begun["tolerance"]:
                    table[name].why = f"its gradient is off by {table[name].error:.0e}"
            if not table[name].why:
                calls[name] = max(1, math.ceil(TURN / process.turn(1)["wall"]))
        spent = 0.0
        for turn in range(rounds):
            order = list(calls)
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                found = running[name].turn(calls[name])
                table[name].turns.append(found[clock])
                table[name].mib = found["mib"]
                spent += found["wall"] * calls[name]
            if spent > seconds and turn >= 2:
                break
    return table


def fastest_peer(table: dict[str, Found]) -> str | None:
    """Return the library of others with the smallest median."""
    peers = [name for name, found in table.items() if contenders.ALL[name].peer and found.turns]
    return min(peers, key=lambda name: statistics.median(table[name].turns), default=None)
