"""Overfitting across tasks, and what is done against it: photographs of groceries, of which there are few classes.

    python benchmarks/overfitting.py                      # six ways of training, two seeds each
    python benchmarks/overfitting.py --only plain dropout

Prototypical networks with Conv4 (32 filters) on 42x42 pixels learn on the 48 training classes, 5-way 5-shot. The table
has the accuracy, in per cent, on new tasks of the training classes and on tasks of the test classes: with the learner
of the last outer step, and on the test classes also with the learner of the best validation, which ``rbml train``
keeps. The accuracies of the seeds are averaged task by task; the 95 % intervals are over tasks, and say nothing of
other seeds or other classes. All ways of training are measured on the same tasks; in brackets is the paired difference
from the first way. A run that was stopped continues where it was.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from rbml import data
from rbml.recipe.streams import TEST
from rbml.tasks import FewShot
from rbml.training import RunFolder, evaluator, learned

EVERY = [
    *("grocery", "--size", "42", "--filters", "32", "--algorithm", "protonet", "--ways", "5", "--shots", "5"),
    *("--queries", "5", "--tasks", "4", "--validate-every", "40", "--validate-tasks", "60", "--no-verify"),
]
WAYS: dict[str, list[str]] = {
    "plain": [],
    "patience": ["--patience", "3"],
    "dropout": ["--dropout", "0.2"],
    "augment": ["--augment", "auto"],
    "rotated": ["--set", "task.rotate_classes=true"],
    "mixed": ["--set", "task.mix_classes=0.5"],
}
"""What is added to the command that trains."""


MEASURED = (("last", "train"), ("last", "test"), ("best", "test"))
"""Which learner is measured on which classes."""


def trained(place: Path, name: str, seed: int, steps: int) -> str:
    """Train a run unless it is finished, and return its folder."""
    run = place / f"{name}-{seed}"
    begin = [*EVERY, *WAYS[name], "--seed", str(seed), "--meta-steps", str(steps), "--run", str(run)]
    arguments = ["--resume", str(run)] if (run / "config.json").is_file() else begin
    subprocess.run([sys.executable, "-m", "rbml.cli", "train", *arguments], check=True, stdout=subprocess.DEVNULL)
    return str(run)


def accuracies(run: str, which: str, part: str, count: int) -> Tensor:
    """Return the accuracy of each task, in per cent: classes as they are, and each query predicted by itself."""
    found = learned.load(run, which)
    examples = data.ALL["grocery"](part, None, **found.setting.modality.spec())
    tasks = FewShot(examples, ways=5, shots=5, queries=10)
    parts = []
    for some in evaluator.draw(tasks, count, 20, 0, TEST):
        each = found.learner.evaluate(some, "inductive", each_step=False, ways=5, metrics=tasks.target.metrics)
        parts.append(each.metrics["accuracy"][:, -1])
    return 100 * torch.cat(parts)


def described(values: Tensor) -> str:
    """Return the mean and its 95 % interval."""
    return f"{values.mean():.1f} ± {1.96 * values.std() / math.sqrt(len(values)):.1f}"


def main() -> None:
    """Train, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400, help="outer steps")
    parser.add_argument("--tasks", type=int, default=300, help="tasks of each measurement")
    parser.add_argument("--runs", type=Path, default=Path("runs/overfitting"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    titles = [*(f"{part} classes, {which}" for which, part in MEASURED), "steps taken", "kept learner of step"]
    print(f"| training | {' | '.join(titles)} |\n| --- |{' ---: |' * len(titles)}")
    plain: dict[tuple[str, str], Tensor] = {}
    for name in given.only:
        runs = [trained(given.runs, name, seed, given.steps) for seed in range(given.seeds)]
        cells = []
        for which, part in MEASURED:
            values = torch.stack([accuracies(run, which, part, given.tasks) for run in runs]).mean(0)
            gain = values - plain.setdefault((which, part), values)
            cells.append(described(values) + f" ({described(gain)})" * (name != given.only[0]))
        folders = [RunFolder(run) for run in runs]
        for steps in ([folder.saved_step() for folder in folders], [folder.trained() for folder in folders]):
            cells.append(", ".join(map(str, steps)))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
