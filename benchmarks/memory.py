"""Memory over many outer steps: it must stay flat.

    python benchmarks/memory.py      # a few minutes

Trains an MLP and a small Conv4 for 1,000 outer steps, with validations, checkpoints and journal as in a real run, and
prints the resident memory of the process after 100 and after 1,000 steps. Exits with 1 where it grew by more than 2 %.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from rbml.training import Recipe, RunFolder, train

EARLY = 100
GROWTH = 0.02
MODELS = {
    "mlp": Recipe(model="mlp", tasks=4, validate_every=50, validate_tasks=20, save_every=20),
    "conv4, 8 filters": Recipe(filters=8, tasks=4, validate_every=50, validate_tasks=20, save_every=20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meta-steps", type=int, default=1000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'model':18} {'after 100':>12} {f'after {chosen.meta_steps}':>12} {'growth':>8} {'seconds':>8}")
    worst = 0.0
    for name, recipe in MODELS.items():
        began = time.perf_counter()
        early, late = measure(Recipe(**(recipe.to_json() | {"meta_steps": chosen.meta_steps})))
        worst = max(worst, late / early - 1)
        seconds = time.perf_counter() - began
        print(f"{name:18} {early:8.1f} MiB {late:8.1f} MiB {late / early - 1:8.1%} {seconds:8.0f}", flush=True)
    print("PASSED" if worst <= GROWTH else "FAILED")
    sys.exit(worst > GROWTH)


def measure(recipe: Recipe) -> tuple[float, float]:
    """Return the resident MiB after the first 100 and after all outer steps."""
    training, validation = recipe.build_tasks("train"), recipe.build_tasks("val")
    early = late = 0.0
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run.create(recipe, {}, None)
        for progress in train(run, recipe, training, validation):
            if progress.step == EARLY:
                early = resident()
            late = resident()
    return early, late


def resident() -> float:
    """Return the resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
