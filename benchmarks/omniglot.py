"""Train on Omniglot as in the papers and measure on 1,000 test tasks.

    python benchmarks/omniglot.py five      # 5-way 1-shot, about ten minutes on 2 cores
    python benchmarks/omniglot.py twenty    # 20-way 1-shot, about 40 minutes
    python benchmarks/omniglot.py lake      # 20-way 1-shot, the classes of a task from one alphabet

Five ways: Meta-SGD, measured with one query per class and with five. Twenty ways: prototypical networks, the best in
``benchmarks/algorithms.py``, trained with sixty ways as in their paper on changed pictures, in the protocol of MAML++
(one query per class), by the best checkpoint and by the five best together. Needs Omniglot under $RBML_DATA (or a
network connection). A run that was stopped continues where it was. Prints the speed of the machine, the training time
from the journal, and the tables of ``rbml evaluate``.
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

PROTONET = ["--algorithm", "protonet", "--pool", "max", "--augment", "affine,elastic", "--queries", "1",
            "--validate-every", "250", "--validate-tasks", "100", "--keep-best", "5"]  # fmt: skip
SETTINGS = {
    "five": ["--split", "vinyals-1200", "--algorithm", "meta_sgd", "--lr", "0.4", "--steps", "1", "--ways", "5",
             "--tasks", "16", "--outer-lr", "4e-3", "--meta-steps", "4000"],
    "twenty": ["--split", "antoniou", *PROTONET, "--ways", "60", "--tasks", "4", "--meta-steps", "6000"],
    "lake": ["--split", "lake-within", *PROTONET, "--ways", "20", "--tasks", "12", "--meta-steps", "3000"],
}  # fmt: skip
MEASURED = {
    "five": [["--ways", "5", "--queries", "1"], ["--ways", "5", "--queries", "5"]],
    "twenty": [["--ways", "20", "--queries", "1"], ["--ways", "20", "--queries", "1", "--ensemble"]],
    "lake": [["--ways", "20", "--queries", "1"], ["--ways", "20", "--queries", "1", "--ensemble"]],
}
"""What ``rbml evaluate`` is asked for."""


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
    parser.add_argument("--compile", default="no", help="As of rbml train: whole is faster once it is compiled.")
    chosen = parser.parse_args()
    run = chosen.run or Path("runs") / f"omniglot-{chosen.setting}"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(f"{machine}: {gflops():.0f} GFLOP/s in float32 before")

    rbml = [sys.executable, "-m", "rbml.cli"]
    settings = [*SETTINGS[chosen.setting], "--compile", chosen.compile]
    settings += ["--meta-steps", chosen.meta_steps] if chosen.meta_steps else []
    subprocess.run([*rbml, "train", "omniglot", *settings, "--resume", str(run)], check=True)
    seconds = sum(line["seconds"] for line in RunFolder(run).lines())
    print(f"training: {seconds / 60:.1f} minutes, {gflops():.0f} GFLOP/s after")
    for options in MEASURED[chosen.setting]:
        subprocess.run([*rbml, "evaluate", str(run), *options], check=True)


if __name__ == "__main__":
    main()
