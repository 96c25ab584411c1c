"""Learning to learn without labels, beside the same learner with labels, and beside what is published.

    python benchmarks/unlabelled.py omniglot     # 20-way 1-shot training, twice: half an hour on one busy core
    python benchmarks/unlabelled.py grocery      # clusters of frozen features as classes: ten minutes

Omniglot: prototypical networks with Conv4, trained on pictures without labels (UMTRA, queries changed by affine and
elastic changes) and on the labelled classes, with the same sizes and number of steps, then measured on the test
classes. Grocery photographs: an adaptor on the features of EfficientNet-Lite0, trained on clusters (CACTUs) and on the
labelled training classes, beside the frozen features alone. Needs the data under $RBML_DATA. A run that was stopped
continues where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

PUBLISHED = {(5, 1): 83.80, (5, 5): 95.43, (20, 1): 74.25, (20, 5): 92.12}
"""UMTRA with MAML on Omniglot by (ways, shots), in per cent: Khodadadeh et al. 2019 (arXiv:1811.11819).

Quoted from memory: the text of the paper was not at hand to check them."""

OMNIGLOT = [
    *("omniglot", "--algorithm", "protonet", "--ways", "20", "--shots", "1", "--queries", "2", "--tasks", "8"),
    *("--validate-every", "250", "--validate-tasks", "50"),
]
GROCERY = [
    *("grocery", "--encoder", "efficientnet_lite0", "--shots", "5", "--queries", "5", "--tasks", "16"),
    *("--validate-every", "100", "--validate-tasks", "50"),
]
CLUSTERS = ["--labels", "none", "--task", "cactus", "--set", "task.clusters=100"]


def rbml(*arguments: str) -> str:
    """Run a command of rbml, its progress on the terminal, and return what it prints."""
    run = subprocess.run([sys.executable, "-m", "rbml.cli", *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return run.stdout


def trained(run: Path, *arguments: str) -> str:
    """Train a run unless it is finished, and return its folder."""
    begun = (run / "config.json").is_file()
    rbml("train", *(("--resume", str(run)) if begun else (*arguments, "--run", str(run))))
    return str(run)


def accuracy(subject: str, ways: int, shots: int, tasks: int, *more: str) -> str:
    """Return the accuracy in per cent, with batch norm of the support set, and its interval."""
    sizes = ["--ways", str(ways), "--shots", str(shots), "--episodes", str(tasks)]
    found = json.loads(rbml("evaluate", subject, *sizes, *more, "--json"))
    score = found["accuracy"]["inductive"][-1]
    return f"{100 * score['mean']:.1f} ± {100 * score['interval']:.1f}"


def omniglot(place: Path, steps: int, tasks: int) -> None:
    """Print the table of Omniglot."""
    every = [*OMNIGLOT, "--meta-steps", str(steps)]
    without = trained(place / "omniglot-none", *every, "--labels", "none")
    given = trained(place / "omniglot-given", *every)
    print("| task | no labels | published UMTRA | the same learner with labels |\n| --- | --- | --- | --- |")
    for (ways, shots), published in PUBLISHED.items():
        own, other = (accuracy(run, ways, shots, tasks) for run in (without, given))
        print(f"| {ways}-way {shots}-shot | {own} | {published:.1f} | {other} |", flush=True)


def grocery(place: Path, steps: int, tasks: int) -> None:
    """Print the table of the grocery photographs."""
    every = [*GROCERY, "--meta-steps", str(steps)]
    without = trained(place / "grocery-none", *every, *CLUSTERS)
    given = trained(place / "grocery-given", *every)
    print("| task | no labels | frozen features | with labels |\n| --- | --- | --- | --- |")
    for shots in (1, 5):
        subjects = (without, "backbone:efficientnet_lite0", given)
        scores = [accuracy(one, 5, shots, tasks, "--tasks", "grocery", "--queries", "10") for one in subjects]
        print(f"| 5-way {shots}-shot | {' | '.join(scores)} |", flush=True)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("omniglot", "grocery"))
    parser.add_argument("--steps", type=int, help="outer steps  [500 for omniglot, 300 for grocery]")
    parser.add_argument("--tasks", type=int, default=1000, help="test tasks")
    parser.add_argument("--runs", type=Path, default=Path("runs/unlabelled"))
    given = parser.parse_args()
    measure = {"omniglot": (omniglot, 500), "grocery": (grocery, 300)}[given.what]
    measure[0](given.runs, given.steps or measure[1], given.tasks)


if __name__ == "__main__":
    main()
