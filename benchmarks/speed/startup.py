"""How much longer ``import rbml``, with the names of a training script, takes than ``import torch``."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys

IMPORTS = {
    "torch": "import torch",
    "rbml": "import rbml, torch",
    "rbml's names": "from rbml import Learner, Episodes, Batch, algorithms, strategy",
}


def run(chosen: argparse.Namespace) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(chosen.rounds + 1):  # the first round reads the files from the disk
        for name, code in IMPORTS.items():
            began = _spent()
            subprocess.run([sys.executable, "-c", code], check=True)
            seconds[name].append(_spent() - began)
    print("processor seconds\n\n| | median s | best s | to torch (median) | (best) |\n| --- | --- | --- | --- | --- |")
    kept = {name: found[1:] for name, found in seconds.items()}
    for name, found in kept.items():
        ratios = [one / other for one, other in zip(found, kept["torch"], strict=True)]
        best = min(found) / min(kept["torch"])
        cells = f"{statistics.median(found):.2f} | {min(found):.2f} | {statistics.median(ratios):.2f} | {best:.2f}"
        print(f"| {name} | {cells} |")


def _spent() -> float:
    """Return the processor seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
