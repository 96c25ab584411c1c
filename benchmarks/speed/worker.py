"""One contender in its own process: ``python -m speed.worker PROBLEM CONTENDER DTYPE FILE SIZES``.

It computes once, saves the meta-gradient, prints the time of that first call, and then answers every line of its input,
a number of calls, with the wall-clock and processor seconds that they took. Apart from that it waits for input, so that
contenders can take turns without disturbing one another.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speed import contenders, problems
from speed.problem import NotPossible


def main(row: str, name: str, dtype: str, file: str, sizes: str) -> None:
    warnings.simplefilter("ignore")
    who = contenders.ALL[name]
    try:
        make = importlib.import_module(f"speed.contenders.{who.module}").make
    except ModuleNotFoundError as missing:
        say(why=f"{missing.name} is not installed")
        return
    problem = problems.ALL[row](**json.loads(sizes))
    before = _status("VmRSS")
    began = time.perf_counter()
    try:
        run = make(problem, getattr(torch, dtype), **who.options)
        grads = run()
    except NotPossible as why:
        say(why=str(why))
        return
    first = time.perf_counter() - began
    np.savez(file, **{key: _array(leaf) for key, leaf in grads.items()})
    say(first=first, tolerance=problem.tolerance, about=problem.about)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (VmHWM): the first call may have compiled
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            run()
        taken = {"wall": (time.perf_counter() - wall) / int(line), "cpu": (time.process_time() - cpu) / int(line)}
        say(**taken, mib=(_status("VmHWM") - before) / 1024)


def say(**found: Any) -> None:
    sys.__stdout__.write(json.dumps(found) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


def _array(leaf: Any) -> Any:
    return leaf.detach().double().numpy() if isinstance(leaf, torch.Tensor) else np.asarray(leaf, np.float64)


def _status(field: str) -> int:
    """Return a field of this process's status in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    sys.stdout = sys.stderr  # what libraries print must not get between the answers
    main(*sys.argv[1:])
