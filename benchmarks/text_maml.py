"""A MAML step through MiniLM: is its second order right, and what does it cost?

    python benchmarks/text_maml.py --data-root DATA            # ten minutes of processor time
    python benchmarks/text_maml.py --data-root DATA --steps 1 --changed head LoRA

One 5-way 1-shot task of BANKING77 with one query per class. Time: processor time of the second meta-gradient of a
process of its own, beside that of one ordinary gradient of the loss of the same ten sentences in that process. Memory:
by how much the largest resident memory of the process exceeds that before the first gradient. Difference: in float64,
with 1 inner step, the largest difference of a parameter's meta-gradient from backpropagating twice in plain PyTorch,
relative to the norm of the whole meta-gradient. ``FirstOrder`` leaves the second order out: its difference shows how
much that is.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F
from memory import resident
from torch import Tensor, nn
from torch.func import functional_call

from rbml import algorithms, data, hypergrad, models
from rbml.data import Labelled
from rbml.learner import Learner
from rbml.tasks import FewShot
from rbml.tasks.base import Episode, one
from rbml.tree import Tree

RATE = 0.01
CHANGED = {"head": (0, "head"), "LoRA": (8, "*"), "all": (0, "*")}
"""What a task changes: the rank of LoRA, and the pattern of the parameters."""

ENGINES: dict[str, Callable[[], hypergrad.Hypergradient]] = {
    "Adjoint": hypergrad.Adjoint,
    "Adjoint, keep=0": partial(hypergrad.Adjoint, keep=0),
    "FirstOrder": hypergrad.FirstOrder,
}


def made(changed: str, engine: str, steps: int, double: bool = False) -> Learner:
    """Return MAML on MiniLM."""
    torch.manual_seed(0)
    rank, pattern = CHANGED[changed]
    model: nn.Module = models.pretrained_text.minilm(5, rank)
    options: dict[str, Any] = {"adapt": pattern, "vectorise": False, "verify": False}
    model = model.double() if double else model
    return algorithms.maml(model, lr=RATE, steps=steps, hypergradient=ENGINES[engine](), **options)


def plainly(model: nn.Module, names: list[str], task: Episode) -> Tree:
    """Return the meta-gradient of one inner step by backpropagating twice."""
    leaves: Tree = {name: leaf for name, leaf in model.named_parameters() if leaf.requires_grad}
    theta = {name: leaves[name] for name in names}
    loss = F.cross_entropy(functional_call(model, theta, (), dict(task.support.x)), task.support.y)
    unused: dict[str, Any] = {"allow_unused": True, "materialize_grads": True}  # the pooler of the encoder
    grads = torch.autograd.grad(loss, list(theta.values()), create_graph=True, **unused)
    theta = {name: leaf - RATE * grad for (name, leaf), grad in zip(theta.items(), grads, strict=True)}
    loss = F.cross_entropy(functional_call(model, theta, (), dict(task.query.x)), task.query.y)
    found = torch.autograd.grad(loss, list(leaves.values()), **unused)
    return dict(zip(leaves, found, strict=True))


def apart(changed: str, engine: str, tasks: Any) -> float:
    """Return how far a meta-gradient in float64 is from plain PyTorch's."""
    learner = made(changed, engine, 1, double=True)
    truth = plainly(learner.model, list(learner.adapted), one(tasks, 0))
    found = learner.meta_gradient(tasks).grads
    whole = torch.stack([leaf.norm() for leaf in truth.values()]).norm()
    return max(float((found[f"model.{name}"] - leaf).norm() / whole) for name, leaf in truth.items())


def cost(changed: str, engine: str, steps: int, tasks: Any) -> tuple[float, float, float]:
    """Return the times of a meta-gradient and of an ordinary gradient, in seconds, and the memory in MiB."""
    torch.set_num_threads(1)
    learner = made(changed, engine, steps)
    before = resident()
    times = []
    for _ in range(2):
        began = time.process_time()
        learner.meta_gradient(tasks)
        times.append(time.process_time() - began)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    task = one(tasks, 0)
    for _ in range(2):
        began = time.process_time()
        loss: Tensor = torch.zeros(())
        for part in (task.support, task.query):
            loss = loss + F.cross_entropy(learner.model(**part.x), part.y)
        torch.autograd.backward(loss)
        plain = time.process_time() - began
    return times[-1], plain, most


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--steps", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--changed", nargs="+", default=list(CHANGED), choices=list(CHANGED))
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    source = data.load("banking77", "train", given.data_root, tokenizer="minilm")
    assert isinstance(source, Labelled)
    tasks = FewShot(source, 5, 1, 1).draw([0])
    print("| a task changes | engine | inner steps | time, in ordinary gradients | memory, MiB | difference, float64 |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for changed in given.changed:
        for engine in given.engines:
            difference = apart(changed, engine, tasks)
            for steps in given.steps:
                with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                    seconds, plain, most = alone.submit(cost, changed, engine, steps, tasks).result()
                row = f"| {changed} | {engine} | {steps} | {seconds / plain:.1f} | {most:.0f} |"
                print(f"{row} {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
