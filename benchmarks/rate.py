"""Labels that were flipped on purpose: how many of them `rbml rate` finds, on digits, a table and texts.

    python benchmarks/rate.py [--data digits cancer snips] [--flipped 0.2] [--seeds 3]

F1 of "weight below one half" against the flipped labels. Nobody tells it how many there are, and no example is known to
be right. Beside it, the plain alternative: examples whose label a logistic regression, trained on the other half,
predicts otherwise.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from torch import Tensor

from rbml import Batch
from rbml.data.targets.logistic import logistic_regression
from rbml.models import MLP
from rbml.training.tune.rating import rate


def digits() -> Batch:
    from sklearn.datasets import load_digits  # noqa: PLC0415  one data set of several

    x, y = load_digits(return_X_y=True)
    return Batch(torch.tensor(x / 16).float(), torch.tensor(y))


def cancer() -> Batch:
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415

    x, y = (torch.tensor(part) for part in load_breast_cancer(return_X_y=True))
    return Batch(((x - x.mean(0)) / x.std(0)).float(), y)


def snips() -> Batch:
    """Return 1,400 sentences of seven intents, as features of a frozen encoder."""
    from rbml.recipe import Recipe, build  # noqa: PLC0415

    recipe = Recipe.of(data="snips", encoder="minilm")
    found = build.examples(recipe, recipe.data[0], "train", str(Path(os.environ["RBML_DATA"])))
    order = torch.randperm(len(found.y), generator=torch.Generator().manual_seed(0))[:1400]
    return Batch(found.modality.ready(found.x)[order], found.y[order])


SOURCES = {"digits": digits, "cancer": cancer, "snips": snips}


def corrupted(data: Batch, share: float, seed: int) -> tuple[Batch, Tensor]:
    """Return the data with a share of wrong labels, and which they are."""
    source, classes = torch.Generator().manual_seed(seed), int(data.y.max()) + 1
    wrong = torch.rand(len(data.y), generator=source) < share
    other = (data.y + torch.randint(1, classes, (len(data.y),), generator=source)) % classes
    return Batch(data.x, torch.where(wrong, other, data.y)), wrong


def disagreement(data: Batch, seed: int) -> Tensor:
    """Return whose label a logistic regression on the other half predicts otherwise."""
    found = torch.zeros(len(data.y), dtype=torch.bool)
    halves = torch.tensor_split(torch.randperm(len(data.y), generator=torch.Generator().manual_seed(seed)), 2)
    for own, other in (halves, halves[::-1]):
        members = data.y[other][:, None] == torch.arange(int(data.y.max()) + 1)
        logits = logistic_regression(data.x[other], members, data.x[own])
        found[own] = logits.argmax(1) != data.y[own]
    return found


def f1(found: Tensor, truth: Tensor) -> float:
    return 2 * float((found & truth).sum()) / max(float(found.sum() + truth.sum()), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--flipped", type=float, default=0.2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--changes", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    header = "| data | examples | seed | F1 of rate | F1 of a logistic regression | seconds |"
    print(header + "\n" + "| --- " * 6 + "|")
    for name in chosen.data:
        clean = SOURCES[name]()
        for seed in range(chosen.seeds):
            data, wrong = corrupted(clean, chosen.flipped, seed)
            began = time.process_time()
            model = MLP(data.x.shape[1], int(clean.y.max()) + 1, ())
            found = rate(model, data, rounds=chosen.rounds, changes=chosen.changes, seed=seed, compile=True)
            used = time.process_time() - began
            plain = f1(disagreement(data, seed), wrong)
            print(
                f"| {name} | {len(wrong)} | {seed} | {f1(found.hurts, wrong):.3f} | {plain:.3f} | {used:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
