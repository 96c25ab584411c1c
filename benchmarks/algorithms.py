"""Omniglot, 20-way 1-shot: all algorithms and baselines with the same training time, in one table.

    python benchmarks/algorithms.py --minutes 3                    # all of them, an hour on one core
    python benchmarks/algorithms.py --minutes 30 --only maml protonet meta_sgd

Time is the processor time of this process, so that other jobs on the machine matter less. Every learner uses Conv4 with
64 filters, strided; 4 tasks with one query per class in each outer step; Adam with 4e-3 and a cosine to zero, whose
length follows from the time of the first steps; gradients clipped at 10. Split ``vinyals-1200``. All are measured on
the same test tasks with one query per class: accuracy in %, mean and 95 % interval, transductive and inductive.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from rbml import Episodes, Learner, algorithms, data
from rbml.algorithms.options import assemble
from rbml.data.targets.classes import ACCURACY
from rbml.models import Conv4
from rbml.strategy import Strategy, chain, kronecker, prototype, sgd
from rbml.tasks import FewShot, Supervised, generator

WAYS, TASKS, WARM = 20, 4, 4
Tasks = FewShot | Supervised

PRESETS: dict[str, dict[str, Any]] = {
    "maml": {"lr": 0.4, "steps": 1},
    "maml (5 steps)": {"lr": 0.1, "steps": 5},
    "fomaml": {"lr": 0.4, "steps": 1},
    "reptile": {"lr": 0.1, "steps": 5},
    "anil": {"lr": 0.4, "steps": 1},
    "boil": {"lr": 0.4, "steps": 1},
    "meta_sgd": {"lr": 0.4, "steps": 1},
    "maml++": {"lr": 0.2, "steps": 3},
    "meta_curvature": {"lr": 0.4, "steps": 1},
    "alfa": {"lr": 0.4, "steps": 1},
    "l2f": {"lr": 0.4, "steps": 2},
    "metal": {"lr": 0.4, "steps": 1},
    "warp_grad": {"lr": 0.4, "steps": 1},
    "protonet": {},
    "protomaml": {"lr": 0.4, "steps": 1},
    "r2d2": {},
}
OWN: dict[str, Strategy] = {"protomaml, kronecker": chain(prototype(), kronecker(), sgd(0.4))}
"""Strategies that are not presets, with one inner step."""


def fitted(learner: Learner, tasks: Tasks, minutes: float, batches: int = TASKS) -> int:
    """Meta-train for some minutes of processor time and return the number of outer steps."""
    optimizer = torch.optim.Adam(learner.parameters(), lr=4e-3)
    began, total, step = time.process_time(), 10**9, 0
    while step < total:
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * step / total)).item())
        optimizer.zero_grad()
        learner.backward(tasks.sample(batches, generator(0, step)), phase=learner.phase(step / total))
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 10.0)
        optimizer.step()
        step += 1
        if step == WARM:
            began = time.process_time()
        elif step == 3 * WARM:  # the first steps are slower and were not counted: the rate of the next ones decides
            total = step + int((60 * minutes) / ((time.process_time() - began) / (2 * WARM)))
    return step


def row(name: str, steps: int | str, learner: Learner, held_out: Sequence[Episodes]) -> None:
    """Measure a learner on the test tasks and print its row."""
    cells = []
    for statistics in ("transductive", "inductive"):
        found = [
            learner.evaluate(part, statistics, ways=WAYS, each_step=False, metrics=(ACCURACY,)).metrics["accuracy"][
                :, -1
            ]
            for part in held_out
        ]
        cells.append(percent(torch.cat(found)))
    print(f"| {name} | {steps} | {cells[0]} | {cells[1]} |", flush=True)


def percent(found: torch.Tensor) -> str:
    return f"{100 * found.mean():.1f} ± {196 * found.std() / len(found) ** 0.5:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=[*PRESETS, *OWN, "finetune", "scratch", "centroid", "neighbour"])
    parser.add_argument("--data-root", default=os.environ.get("RBML_DATA"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    arrays = data.load("omniglot", "train", chosen.data_root, "vinyals-1200")
    training = FewShot(arrays, WAYS, 1, 1)
    testing = FewShot(data.load("omniglot", "test", chosen.data_root, "vinyals-1200"), WAYS, 1, 1)
    held_out = [testing.sample(20, generator(1, part)) for part in range(max(chosen.episodes // 20, 1))]
    print(f"20-way 1-shot, {chosen.minutes:g} minutes of processor time each, {20 * len(held_out)} test tasks\n")
    print("| algorithm | outer steps | transductive | inductive |\n| --- | --- | --- | --- |")
    for name in chosen.only:
        torch.manual_seed(0)
        if name in PRESETS:
            preset: Callable[..., Learner] = algorithms.ALL[name.partition(" (")[0]]
            learner = preset(Conv4(WAYS), chunk=TASKS, **PRESETS[name])
            row(name, fitted(learner, training, chosen.minutes), learner, held_out)
        elif name in OWN:
            learner = assemble(Conv4(WAYS), OWN[name], steps=1)
            row(name, fitted(learner, training, chosen.minutes), learner, held_out)
        elif name == "finetune":
            body, steps = pretrained(Supervised(arrays, batch=128), chosen.minutes)
            row("pretrain, fine-tune", steps, algorithms.finetune(body, lr=0.05, steps=30, chunk=TASKS), held_out[:3])
        elif name == "scratch":
            row("from scratch", "-", algorithms.scratch(Conv4(WAYS), chunk=TASKS), held_out[:3])
        else:
            baseline = algorithms.nearest_centroid if name == "centroid" else algorithms.nearest_neighbour
            found = percent(torch.cat([baseline(part) for part in held_out]))
            print(f"| nearest {name}, pixels | - | {found} | {found} |", flush=True)


def pretrained(tasks: Supervised, minutes: float) -> tuple[nn.Module, int]:
    """Return a network pretrained to classify all training classes, with a new head of the task's size."""
    learner = algorithms.pretrain(Conv4(tasks.classes), chunk=1)
    steps = fitted(learner, tasks, minutes, batches=1)
    body = Conv4(WAYS)
    trained = {name: leaf for name, leaf in learner.model.state_dict().items() if not name.startswith("head.")}
    body.load_state_dict(body.state_dict() | trained)
    return body, steps


if __name__ == "__main__":
    main()
