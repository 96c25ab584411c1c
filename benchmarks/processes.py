"""How much faster several processes train: Omniglot's network on drawn glyphs, one thread per process.

    python benchmarks/processes.py --processes 1 2 --rounds 3

Runs of ``rbml train`` take turns, so that a busy machine slows all alike. Prints the median and the least time of an
outer step, from their journals without the first five steps, and the speed-up over one process and its share of the
ideal.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from kill import launched

from rbml.training import RunFolder

SETTINGS = "--tasks 32 --validate-every 1000 --validate-tasks 2 --threads 1 --no-verify"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--meta-steps", type=int, default=25)
    parser.add_argument("--chunk", type=int)
    chosen = parser.parse_args()
    chunk = chosen.chunk or -(-32 // max(chosen.processes))
    seconds: dict[int, list[float]] = {size: [] for size in chosen.processes}
    with tempfile.TemporaryDirectory() as name:
        for number in range(chosen.rounds):
            for size in chosen.processes:
                run = RunFolder(Path(name) / f"{number}-{size}")
                options = f"{SETTINGS} --chunk {chunk} --meta-steps {chosen.meta_steps} --resume {run.path}"
                command = [*launched(size), "rbml", "train", "glyphs", *options.split()]
                quiet = subprocess.DEVNULL
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                subprocess.run(command, check=True, stdout=quiet, stderr=quiet, env=environment)
                seconds[size] += [line["seconds"] for line in run.lines()][5:-1]
    one = seconds[chosen.processes[0]]
    print(f"chunks of {chunk}; {len(one)} steps each")
    print("processes  median s  least s  speed-up (median)  of the ideal  speed-up (least)")
    for size, found in seconds.items():
        middle, least = statistics.median(found), min(found)
        gain, best = statistics.median(one) / middle, min(one) / least
        print(f"{size:9}  {middle:8.3f}  {least:7.3f}  {gain:17.2f}  {gain / size:12.0%}  {best:16.2f}")


if __name__ == "__main__":
    main()
