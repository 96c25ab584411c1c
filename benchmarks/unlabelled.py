"""Learning to learn without labels, beside the same learner with labels, and beside what is published.

    python benchmarks/unlabelled.py omniglot     # 20-way 1-shot training, twice: an hour on one busy core
    python benchmarks/unlabelled.py grocery      # clusters of frozen features as classes, and changed copies

Omniglot: prototypical networks with Conv4, trained on pictures without labels (UMTRA, queries changed by affine and
elastic changes) and on the labelled classes, with the same sizes and number of steps, then measured on the test
classes. Grocery photographs: an adaptor on the features of EfficientNet-Lite0, trained on clusters of them (CACTUs) and
on the labelled training classes, beside the frozen features alone; and Conv4 on 42x42 pixels, trained on changed copies
(UMTRA) and on the labelled classes. Validation tasks of a run without labels are made without labels, too: none is
used before the test classes are learned. Needs the data under $RBML_DATA. A run that was stopped goes on.
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
BACKBONE = "efficientnet_lite0"
FEATURES = [
    *("grocery", "--encoder", f"{BACKBONE}:colour", "--ways", "5", "--shots", "5", "--queries", "5", "--tasks", "16"),
    *("--meta-steps", "150", "--validate-every", "50", "--validate-tasks", "50"),
]
CLUSTERS = ["--labels", "none", "--task", "cactus", "--set", "task.clusters=100"]
PIXELS = [
    *("grocery", "--size", "42", "--filters", "32", "--algorithm", "protonet", "--ways", "10", "--shots", "1"),
    *("--queries", "5", "--tasks", "4", "--meta-steps", "400", "--validate-every", "100", "--validate-tasks", "50"),
]
COPIES = ["--labels", "none"]
SHOTS = (1, 5)


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


def curves(subject: str, tasks: int, methods: str) -> dict[str, list[str]]:
    """Return the accuracy in per cent of a subject, and of methods beside it, by the number of shots."""
    sizes = ["--tasks", "grocery", "--ways", "5", "--shots", ",".join(map(str, SHOTS)), "--queries", "10"]
    found = json.loads(rbml("curve", subject, *sizes, "--episodes", str(tasks), "--methods", methods, "--json"))
    return {
        method["name"]: [
            f"{100 * one['score']['mean']:.1f} ± {100 * one['score']['interval']:.1f}" for one in method["by_shots"]
        ]
        for method in found["methods"]
    }


def grocery(place: Path, steps: int, tasks: int) -> None:
    """Print the table of the grocery photographs."""
    runs = {
        "adaptor on features, clusters (no labels)": (FEATURES, CLUSTERS),
        "adaptor on features, with labels": (FEATURES, []),
        "Conv4 on pixels, changed copies (no labels)": (PIXELS, COPIES),
        "Conv4 on pixels, with labels": (PIXELS, []),
    }
    print(f"| 5-way | {' | '.join(f'{shots}-shot' for shots in SHOTS)} |\n| --- |{' ---: |' * len(SHOTS)}")
    beside = "nearest centroid on features,nearest centroid on colours,logistic regression on colours"
    for name, cells in curves(f"backbone:{BACKBONE}", tasks, beside).items():
        shown = "frozen features, ridge head" if name == "learner" else name
        print(f"| {shown} | {' | '.join(cells)} |", flush=True)
    for name, (every, how) in runs.items():
        folder = place / f"grocery-{'pixels' if every is PIXELS else 'features'}-{'none' if how else 'given'}"
        run = trained(folder, *every, *(["--meta-steps", str(steps)] if steps else []), *how)
        print(f"| {name} | {' | '.join(curves(run, tasks, 'centroid on features')['learner'])} |", flush=True)


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("omniglot", "grocery"))
    parser.add_argument("--steps", type=int, help="outer steps  [1500 for omniglot, 150 and 400 for grocery]")
    parser.add_argument("--tasks", type=int, default=1000, help="test tasks")
    parser.add_argument("--runs", type=Path, default=Path("runs/unlabelled"))
    given = parser.parse_args()
    if given.what == "omniglot":
        omniglot(given.runs, given.steps or 1500, given.tasks)
    else:
        grocery(given.runs, given.steps or 0, given.tasks)


if __name__ == "__main__":
    main()
