r"""La-MAML's protocol on MNIST: a stream of tasks with the same ten digits, which only the pictures tell apart.

    python benchmarks/la_maml.py --tasks 5 --examples 200   # small
    python benchmarks/la_maml.py --seeds 0 1 2 3 4                         # as far as the data goes
    python benchmarks/la_maml.py --protocols rotations --mnist FOLDER      # the paper's sizes, all of MNIST

Gupta, Yadav, Paull 2020 (arXiv:2007.13904), after MER (Riemer et al. 2019, arXiv:1810.11910). An MLP with two layers of
100, batches of 10 that come once and 10 of the memory beside them; the number of glances and the rates are those of the
paper's own code. After each task all tasks are tested:

- retained accuracy (RA): the mean accuracy of all tasks at the end;
- learning accuracy (LA): that of each task right after it was learned;
- backward transfer and interference (BTI): RA - LA;
- forward transfer (FWT): the accuracy on each task but the first just before it comes, less that of the new net
  (Lopez-Paz and Ranzato 2017, arXiv:1706.08840).

| | tasks | examples per task | memory | glances | rates begin at | rate of the rates | as remembered: RA, BTI |
| --- | --- | --- | --- | --- | --- | --- | --- |
| rotations | 20 | 1000 | 200 | 5 | 0.15 | 0.3 | 77.4, -8.6 |
| permutations | 20 | 1000 | 200 | 5 | 0.15 | 0.3 | 74.3, -7.6 |
| many | 100 | 200 | 500 | 10 | 0.1 | 0.1 | 48.5, -13.0 |

The published figures are as remembered; they could not be checked. Beside La-MAML: plain online training and
experience replay, one step per glance, with a rate chosen on a stream of its own (other pictures and other tasks).

Differs: by default the data is MNIST's 10,000 test pictures: 6,500 to learn from, 1,500 to choose rates on and 2,000 to
test on, so that tasks share pictures (the paper draws from 60,000); derivatives are exact, where the paper's code is of
first order; the memory is a reservoir of all earlier examples.
"""

from __future__ import annotations

import argparse
import gzip
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml import Batch, Stream, models
from rbml.algorithms import la_maml
from rbml.hypergrad import Unrolled
from rbml.tasks import Replay, generator
from rbml.tasks.base import one
from rbml.training.continual import choose
from rbml.training.online import learn_online

BATCH = 10


@dataclass(frozen=True)
class Protocol:
    """How many tasks there are, and what the learner is given."""

    tasks: int
    examples: int
    memory: int
    glances: int
    start: float
    rate: float


PROTOCOLS = {
    "rotations": Protocol(20, 1000, 200, 5, 0.15, 0.3),
    "permutations": Protocol(20, 1000, 200, 5, 0.15, 0.3),
    "many": Protocol(100, 200, 500, 10, 0.1, 0.1),
}
RATES = (0.003, 0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Digits:
    """Pictures ``(n, 28, 28)`` from 0 to 1, and their digits."""

    x: Tensor
    y: Tensor


def digits(folder: Path, part: str) -> Digits:
    """Read one part of MNIST, ``"train"`` or ``"t10k"``."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    return Digits(torch.tensor(pixels) / 255.0, torch.tensor(labels).long())


def parts(folder: Path) -> tuple[Digits, Digits, Digits]:
    """Return pictures to learn from, to choose rates on and to test on."""
    test = digits(folder, "t10k")
    if (folder / "train-images-idx3-ubyte.gz").is_file():
        whole = digits(folder, "train")
        return Digits(whole.x[:55000], whole.y[:55000]), Digits(whole.x[55000:], whole.y[55000:]), test
    order = torch.randperm(len(test.y), generator=generator(0))
    cut = [Digits(test.x[rows], test.y[rows]) for rows in torch.tensor_split(order, (6500, 8000))]
    return cut[0], cut[1], cut[2]


def changes(kind: str, count: int, seed: int) -> list[Callable[[Tensor], Tensor]]:
    """Return what each task does to pictures ``(n, 28, 28)``: turn them, or permute their pixels."""
    source = generator(seed, 1)
    if kind == "rotations":  # one angle in each of as many equal parts of 180 degrees, as in MER
        angles = (torch.arange(count) + torch.rand(count, generator=source)) * torch.pi / count
        return [turning(angle) for angle in angles.tolist()]
    orders = [torch.randperm(28 * 28, generator=source) for _ in range(count)]
    return [lambda x, order=order: x.flatten(1)[:, order].reshape(x.shape) for order in orders]  # type: ignore[misc]


def turning(angle: float) -> Callable[[Tensor], Tensor]:
    """Return the rotation of pictures by an angle in radians, interpolated between pixels."""
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = torch.tensor([[cos, -sin, 0], [sin, cos, 0]], dtype=torch.float32)

    def turn(x: Tensor) -> Tensor:
        grid = F.affine_grid(matrix.expand(len(x), 2, 3), [len(x), 1, 28, 28], align_corners=False)
        return F.grid_sample(x[:, None], grid, align_corners=False)[:, 0]

    return turn


class Tasks:
    """A stream of tasks ``(T, 10, 784)``, and pictures to test each of them on."""

    def __init__(self, kind: str, how: Protocol, learn: Digits, test: Digits, seed: int) -> None:
        """Draw the pictures of every task, and change them."""
        tried, self.queries, xs, ys = changes(kind, how.tasks, seed), [], [], []
        for task, change in enumerate(tried):
            rows = torch.randperm(len(learn.y), generator=generator(seed, 2, task))[: how.examples]
            xs.append(change(learn.x[rows]).reshape(-1, BATCH, 28 * 28))
            ys.append(learn.y[rows].reshape(-1, BATCH))
            self.queries.append((change(test.x).flatten(1), test.y))
        self.each = how.examples // BATCH
        first = Batch(self.queries[0][0], self.queries[0][1])
        self.stream = Stream(Batch(torch.cat(xs), torch.cat(ys)), first)

    def accuracies(self, model: nn.Module) -> Tensor:
        """Return the accuracy on each task."""
        with torch.no_grad():
            return torch.stack([(model(x).argmax(1) == y).double().mean() for x, y in self.queries])

    def measured(self, model: nn.Module, steps: Iterator[float]) -> tuple[float, float, float]:
        """Let a model go through the stream; return its retained accuracy, backward and forward transfer."""
        fresh = self.accuracies(model)
        learned: list[Tensor] = []
        before: list[Tensor] = []
        for step, _ in enumerate(steps, 1):
            if step % self.each == 0:
                found = self.accuracies(model)
                learned.append(found[len(learned)])
                before += [found[len(learned)] - fresh[len(learned)]] if len(learned) < len(found) else []
        retained = found.mean().item()
        forward = torch.stack(before).mean().item() if before else float("nan")
        return retained, retained - torch.stack(learned).mean().item(), forward


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = models.MLP(28 * 28, 10, (100, 100))
    for layer in made.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return made


def plainly(
    model: nn.Module, stream: Stream, how: Protocol, rate: float, replaying: bool, seed: int
) -> Iterator[float]:
    """Train by plain gradient steps, with or without examples of the memory beside the new ones."""
    optimizer = torch.optim.SGD(model.parameters(), rate)
    single = Stream(*(Batch(part.x[None], part.y[None]) for part in stream))
    memory = one(Replay.of(single, how.memory, BATCH, [seed]), 0)
    for t in range(len(stream.steps.y)):
        for _ in range(how.glances):
            batch = memory.at(t) if replaying else stream.at(t)
            each = F.cross_entropy(model(batch.x), batch.y, reduction="none")
            counts = batch.mask.get("example", torch.ones(len(each), dtype=torch.bool))
            loss = each[counts].mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
        yield float(loss.detach())


def looking_ahead(seed: int, tasks: Tasks, how: Protocol) -> tuple[float, float, float]:
    model = net(seed)
    learner = la_maml(model, lr=how.start, steps=BATCH, hypergradient=Unrolled())
    steps = learn_online(learner, tasks.stream, how.memory, BATCH, how.rate, how.glances, 2.0, seed)
    return tasks.measured(learner.model, steps)


def chosen(seed: int, tasks: Tasks, val: Tasks, how: Protocol, replaying: bool) -> tuple[float, float, float]:
    def found(rate: float, on: Tasks) -> tuple[float, float, float]:
        model = net(seed)
        return on.measured(model, plainly(model, on.stream, how, rate, replaying, seed))

    best = choose(lambda rate: found(rate, val)[0], RATES)
    print(f"    rate {best.value:g}, inside its grid: {best.inside}", flush=True)
    return found(best.value, tasks)


def shown(values: Sequence[float]) -> str:
    column = 100 * torch.tensor(values, dtype=torch.float64)
    return f"{column.mean():.1f}" + (f" ± {column.std():.1f}" if len(column) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocols", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--tasks", type=int, help="how many tasks, where fewer than in the paper")
    parser.add_argument("--examples", type=int, help="how many examples per task, where fewer; a multiple of 10")
    parser.add_argument(
        "--methods", nargs="+", choices=["plain", "replay", "la_maml"], default=["plain", "replay", "la_maml"]
    )
    parser.add_argument("--mnist", type=Path, default=Path(os.environ.get("RBML_DATA", ".")) / "mnist_t10k")
    given = parser.parse_args()
    torch.set_num_threads(1)
    learn, val, test = parts(given.mnist)
    rows = []
    for kind in given.protocols:
        full = PROTOCOLS[kind]
        how = replace(full, tasks=given.tasks or full.tasks, examples=given.examples or full.examples)
        for method in given.methods:
            began, found = time.process_time(), []
            for seed in given.seeds:
                tasks = Tasks(kind, how, learn, test, seed)
                other = Tasks(kind, how, val if len(val.y) >= how.examples else learn, val, 1000 + seed)
                run = {"la_maml": partial(looking_ahead, seed, tasks, how)}
                run |= {
                    name: partial(chosen, seed, tasks, other, how, name == "replay") for name in ("plain", "replay")
                }
                found.append(run[method]())
            measures = [shown(column) for column in zip(*found, strict=True)]
            seconds = (time.process_time() - began) / len(given.seeds)
            size = f"{kind}, {how.tasks} x {how.examples}"
            rows.append(f"| {size} | {method} | {' | '.join(measures)} | {seconds:.0f} |")
            print(rows[-1], flush=True)
    print(
        "\n| protocol | method | RA | BTI | FWT | s per seed |\n| --- | --- | --- | --- | --- | --- |", *rows, sep="\n"
    )


if __name__ == "__main__":
    main()
