"""Memory over many outer steps: it must not grow.

    python benchmarks/memory.py      # a few minutes

Trains an MLP and a small Conv4 for 1,000 outer steps, with validation, checkpoints and journal as in a real run, and
prints the resident memory of the process after 100 and after 1,000 steps: the lowest value of the 50 steps before,
because the buffers of a step (tens of MiB) are freed irregularly by the allocator, and the highest for comparison.
Exits with 1 if the lowest value grows by more than 2 %.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from rbml.recipe import Recipe, build
from rbml.training import RunFolder, train

EARLY = 100
WINDOW = 50
GROWTH = 0.02

Span = tuple[float, float]
MODELS = {
    "mlp": Recipe.of(model="mlp", tasks=4, validate_every=50, validate_tasks=20, save_every=20),
    "conv4, 8 filters": Recipe.of(filters=8, tasks=4, validate_every=50, validate_tasks=20, save_every=20),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meta-steps", type=int, default=1000)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    after = f"after {chosen.meta_steps}"
    print(f"{'MiB: lowest (highest)':24} {'after 100':>16} {after:>16} {'growth':>8} {'seconds':>8}")
    worst = 0.0
    for name, recipe in MODELS.items():
        began = time.perf_counter()
        early, late = measure(recipe.changed(meta_steps=chosen.meta_steps))
        growth = late[0] / early[0] - 1
        worst = max(worst, growth)
        cells = (f"{lowest:.1f} ({highest:.1f})" for lowest, highest in (early, late))
        print(f"{name:24} {' '.join(f'{cell:>16}' for cell in cells)} {growth:8.1%} {time.perf_counter() - began:8.0f}")
    print("PASSED" if worst <= GROWTH else "FAILED")
    sys.exit(worst > GROWTH)


def measure(recipe: Recipe) -> tuple[Span, Span]:
    """Return the lowest and the highest resident MiB before the 100th and before the last outer step."""
    training, validation = build.tasks(recipe, "train"), build.tasks(recipe, "val")
    seen = []
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        run.create(recipe, {}, None)
        for _ in train(run, recipe, training, validation):
            seen.append(resident())
    early, late = seen[EARLY - WINDOW : EARLY], seen[-WINDOW:]
    return (min(early), max(early)), (min(late), max(late))


def resident() -> float:
    """Return the resident memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
