"""Memory over long streams and training jobs: ten times as many steps must not need more.

    python benchmarks/memory_long.py                         # 1,000 and 10,000 steps, about ten minutes
    python benchmarks/memory_long.py --steps 200 2000 --rows follow

For every row and number of steps: by how many MiB the resident memory of the process was higher, at its highest while
the row ran, than before it. A step changes some 43,000 numbers, so that keeping every step would take 1.6 GiB for
10,000. Exits with 1 if the most steps need over 64 MiB more than the fewest (the allocator frees irregularly).

- follow: a learner goes along one stream, a step per example (a learner that adapts its head alone also keeps the
  features of all examples);
- learn_online: La-MAML along one stream, two examples at a time, with a memory of 200;
- stream, windows: the meta-gradient along one stream by windows of 50 steps, all weights adapted;
- job, windows: the meta-gradient of a whole training job with momentum, by windows of 50 steps;
- job, undone: that of the whole job at once, without windows, by undoing its steps.
"""

from __future__ import annotations

import argparse
import gc
import sys
import threading
import time
from collections.abc import Callable

import torch
from memory import resident

from rbml import Batch, Job, Stream, models
from rbml.algorithms import la_maml
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, Hypergradient, Windowed
from rbml.strategy import Hyper, chain, momentum, sgd
from rbml.tasks import generator
from rbml.training.continual import follow
from rbml.training.online import learn_online

INPUTS, CLASSES, HIDDEN = 32, 10, 1000
MORE = 64.0


def net() -> models.MLP:
    torch.manual_seed(0)
    return models.MLP(INPUTS, CLASSES, (HIDDEN,))


def stream(steps: int, size: int) -> Stream:
    """Return one stream ``(T, b, ...)`` of classes that come one after another, and ten queries."""
    x = torch.randn(steps, size, INPUTS, generator=generator(0))
    y = (torch.arange(steps) * CLASSES // steps)[:, None].expand(-1, size)
    return Stream(Batch(x, y), Batch(torch.randn(CLASSES, INPUTS, generator=generator(1)), torch.arange(CLASSES)))


def stack(single: Stream) -> Stream:
    return Stream(*(Batch(part.x[None], part.y[None]) for part in single))


def following(steps: int) -> None:
    follow(assemble(net(), sgd(0.01), verify=False), stack(stream(steps, 1)), (CLASSES // 2, CLASSES))


def online(steps: int) -> None:
    for _ in learn_online(la_maml(net(), lr=0.01, steps=2, verify=False), stream(steps, 2), again=4):
        pass


def along_stream(steps: int) -> None:
    learner = assemble(net(), sgd(Hyper(0.01)), steps, hypergradient=Windowed(50), verify=False)
    learner.meta_gradient(stack(stream(steps, 1)))


def along_job(engine: Hypergradient, steps: int) -> None:
    x, y = torch.randn(500, INPUTS, generator=generator(0)), torch.arange(500) % CLASSES
    tasks = Job.of(Batch(x[:400], y[:400]), Batch(x[400:], y[400:]), 16, [1])
    rules = chain(momentum(Hyper(0.9, bounds=(0, 1))), sgd(Hyper(0.01)))
    assemble(net(), rules, steps, hypergradient=engine, verify=False).meta_gradient(tasks)


ROWS: dict[str, Callable[[int], None]] = {
    "follow": following,
    "learn_online": online,
    "stream, windows": along_stream,
    "job, windows": lambda steps: along_job(Windowed(50), steps),
    "job, undone": lambda steps: along_job(Adjoint(store="reverse"), steps),
}


def highest(work: Callable[[], None]) -> float:
    """Return by how many MiB the resident memory is higher at its highest, sampled 50 times a second, than before."""
    gc.collect()
    before, seen, over = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    return max(max(seen) - before, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs=2, default=[1000, 10000], metavar=("FEW", "MANY"))
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    few, many = chosen.steps
    print(f"| MiB beyond the start | {few:,} steps | {many:,} steps | seconds of {many:,} |\n| --- | --- | --- | --- |")
    worst = 0.0
    for name in chosen.rows:
        ROWS[name](50)  # what the first call loads and keeps
        less = highest(lambda name=name: ROWS[name](few))  # type: ignore[misc]
        began = time.perf_counter()
        more = highest(lambda name=name: ROWS[name](many))  # type: ignore[misc]
        worst = max(worst, more - less)
        print(f"| {name} | {less:.1f} | {more:.1f} | {time.perf_counter() - began:.0f} |", flush=True)
    print("PASSED" if worst <= MORE else "FAILED")
    sys.exit(worst > MORE)


if __name__ == "__main__":
    main()
