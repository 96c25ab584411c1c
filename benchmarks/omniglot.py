"""Train on Omniglot as in the papers and measure on 1,000 test tasks.

    python benchmarks/omniglot.py five      # 5-way 1-shot, about ten minutes on 2 cores
    python benchmarks/omniglot.py twenty    # 20-way 1-shot, about two hours

Five ways: Meta-SGD. Twenty ways: prototypical networks, the best in ``benchmarks/algorithms.py``, trained with sixty
ways as in their paper. Needs Omniglot under $RBML_DATA (or a network connection). A run that was stopped continues
where it was. Prints the speed of the machine, the training time from the journal, and the tables of ``rbml evaluate``
with one query per class, as in the papers, and with five.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from rbml.training import RunFolder

COMMON = ["--split", "vinyals-1200", "--outer-lr", "4e-3"]
SETTINGS = {
    "five": [
        "--algorithm",
        "meta_sgd",
        "--lr",
        "0.4",
        "--steps",
        "1",
        "--ways",
        "5",
        "--tasks",
        "16",
        "--meta-steps",
        "4000",
    ],
    "twenty": ["--algorithm", "protonet", "--ways", "60", "--tasks", "4", "--queries", "1", "--meta-steps", "12000"],
}
WAYS = {"five": "5", "twenty": "20"}
"""The number of classes in the test tasks."""


def gflops() -> float:
    """Return the current speed of the machine in GFLOP/s, measured by 1024 x 1024 float32 matrix products."""
    a = torch.randn(1024, 1024)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / sorted(times)[5] / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--meta-steps", help="Number of outer steps, if not the default.")
    chosen = parser.parse_args()
    run = chosen.run or Path("runs") / f"omniglot-{chosen.setting}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(f"{machine}: {gflops():.0f} GFLOP/s in float32 before")

    rbml = [sys.executable, "-m", "rbml.cli"]
    settings = [*COMMON, *SETTINGS[chosen.setting], *(["--meta-steps", chosen.meta_steps] if chosen.meta_steps else [])]
    subprocess.run([*rbml, "train", "omniglot", *settings, "--resume", str(run)], check=True)
    seconds = sum(line["seconds"] for line in RunFolder(run).lines())
    print(f"training: {seconds / 60:.1f} minutes, {gflops():.0f} GFLOP/s after")
    for queries in ("1", "5"):
        subprocess.run([*rbml, "evaluate", str(run), "--ways", WAYS[chosen.setting], "--queries", queries], check=True)


if __name__ == "__main__":
    main()
