"""Compose an algorithm that is not a preset, and compare it with the algorithms that it combines.

    python examples/own_algorithm.py [--data glyphs] [--outer-steps 300] [--out algorithm.png]

Its head starts from prototypes, as in Proto-MAML. It has one learned rate per tensor and step, similar to MAML++, and a
pull towards the start with one learned strength per layer, as in iMAML. It is trained on synthetic glyphs and measured
on glyphs of new classes and on real handwritten digits, which it has never seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import rbml
from rbml import Learner
from rbml.algorithms import maml, protomaml, protonet
from rbml.models import Conv4
from rbml.strategy import Hyper, Scalar, chain, prototype, proximal, sgd
from rbml.tasks import FewShot, generator


def mine(model: nn.Module, lr: float = 0.1, pull: float = 0.1, steps: int = 3, **options: Any) -> Learner:
    """Adapt from prototypes, with one learned rate per tensor and step and one learned pull per layer."""
    strategy = chain(
        prototype(Scalar(0.1, bounds=(0, None))),
        proximal(Hyper(pull, per="layer", bounds=(0, None))),
        sgd(Hyper(lr, per="tensor", per_step=True, bounds=(0, None))),
    )
    return Learner(model, strategy, steps, **options)


ALGORITHMS: dict[str, Callable[[nn.Module], Learner]] = {
    "maml": lambda model: maml(model, lr=0.1, steps=3),
    "protonet": lambda model: protonet(model, scale=Scalar(0.1, bounds=(0, None))),
    "protomaml": lambda model: protomaml(model, lr=0.1, steps=3, scale=Scalar(0.1, bounds=(0, None))),
    "mine": mine,
}


def train(build: Callable[[nn.Module], Learner], tasks: FewShot, filters: int, outer_steps: int, seed: int) -> Learner:
    """Meta-train with four tasks per outer step and a cosine learning rate."""
    torch.manual_seed(seed)
    learner = build(Conv4(tasks.ways, filters=filters))
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(outer_steps, 1))
    for step in range(outer_steps):
        optimizer.zero_grad()
        learner.backward(tasks.sample(4, generator(seed, step)))
        optimizer.step()
        cosine.step()
    return learner


def accuracy(learner: Learner, tasks: FewShot, count: int) -> tuple[float, float]:
    """Return the mean accuracy on new tasks in % and the half-width of its 95 % interval (inductive batch norm)."""
    found = learner.evaluate(tasks.sample(count, generator(1000)), statistics="inductive", each_step=False)
    assert found.accuracy is not None
    right = 100 * found.accuracy[:, -1]
    return right.mean().item(), 1.96 * right.std().item() / count**0.5


def draw(rows: dict[str, list[tuple[float, float]]], places: list[str], out: Path) -> None:
    """Save a bar plot of the accuracies."""
    import matplotlib.pyplot as plt  # noqa: PLC0415  needed only for a figure

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for at, (name, cells) in enumerate(rows.items()):
        mean, half = zip(*cells, strict=True)
        axes.bar([place + 0.2 * at for place in range(len(places))], mean, 0.18, yerr=half, label=name)
    axes.set_xticks([place + 0.3 for place in range(len(places))], places)
    axes.set(ylabel="accuracy, %", ylim=(20, 100))
    axes.legend()
    figure.savefig(out)


def main(arguments: list[str] | None = None) -> None:
    """Train every algorithm and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glyphs", help="training data: glyphs or omniglot")
    parser.add_argument("--outer-steps", type=int, default=300)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=200, help="number of test tasks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where to save a figure")
    options = parser.parse_args(arguments)

    learned_on, new, digits = (
        FewShot(rbml.data.load(name, part), ways=5, shots=1, queries=5)
        for name, part in ((options.data, "train"), (options.data, "test"), ("digits", "test"))
    )
    places = [f"{options.data}, new classes", "real digits"]
    print(f"accuracy in %, 5-way 1-shot, inductive, {options.outer_steps} outer steps")
    print(f"{'algorithm':10} {places[0]:>22} {places[1]:>14}")
    rows = {}
    for name, build in ALGORITHMS.items():
        learner = train(build, learned_on, options.filters, options.outer_steps, options.seed)
        rows[name] = [accuracy(learner, place, options.tasks) for place in (new, digits)]
        cells = [f"{mean:.1f} ± {half:.1f}" for mean, half in rows[name]]
        print(f"{name:10} {cells[0]:>22} {cells[1]:>14}", flush=True)
    if options.out:
        draw(rows, places, options.out)


if __name__ == "__main__":
    main()
