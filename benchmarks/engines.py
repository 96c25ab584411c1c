"""Memory and time of the exact hypergradient engines, beside ``higher`` and TorchOpt doing the same work.

    python benchmarks/engines.py memory --net mlp --steps 1 10 100 1000
    python benchmarks/engines.py memory --net conv4 --steps 1 10 100 --peers PYTHON
    python benchmarks/engines.py expected --net mlp --steps 10 100
    python benchmarks/engines.py time --net conv4
    python benchmarks/engines.py time --net mlp --compile

``memory``: one task, 5-way 5-shot, float32, SGD with weight decay and momentum 0.9; the derivative of the query loss
with respect to theta0 and the learning rate (with ``Forward``: the learning rate and the momentum). Each number comes
from a separate process: its peak resident memory minus its memory after one run of two steps. A process that needs
``--limit`` GiB more than that, or ``--patience`` seconds, is reported as such. The peers run in the Python given by
``--peers`` (``python -m venv``, then ``pip install torch higher torchopt``). ``--figure`` writes a PNG (needs
matplotlib). The diagnostics of the engines (``info``) are printed below the table.

``expected``: the prediction of ``rbml.explain`` for each engine on the same task, next to the measurement.

``time``: several tasks through ``Learner.meta_gradient``, the engines in turn, medians and minima, in wall-clock
seconds or (``--clock cpu``) in processor seconds, which other jobs on the machine disturb less.
"""
# ruff: noqa: PLC0415  the Python of the peers has no rbml, and this one has no peers

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

RATE, DECAY, PULL = 0.01, 0.9, 1e-4
OURS = ("unrolled", "all", "segments", "reverse", "exact", "forward")
PEERS = ("higher", "torchopt")
EXPECTED = {
    "unrolled": "Unrolled()",
    "all": "Adjoint(keep=1)",
    "segments": "Adjoint(store='segments')",
    "reverse": "Adjoint(store='reverse')",
    "exact": "Adjoint(store='reverse', exact=True)",
    "forward": "Forward()",
}
"""The names of rbml's engines in ``rbml.explain``."""

Task = tuple[Tensor, Tensor, Tensor, Tensor]
Found = tuple[float, dict[str, float]]
"""The derivative with respect to the learning rate, and the engine's diagnostics."""


def network(net: str) -> nn.Module:
    """Return the module that all libraries use: batch norm with batch statistics, without running ones."""
    torch.manual_seed(0)
    if net == "mlp":
        return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
    layers: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        norm = nn.BatchNorm2d(64, track_running_stats=False)
        layers += [nn.Conv2d(channels, 64, 3, padding=1), norm, nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 5))


def task(net: str) -> Task:
    shape = (784,) if net == "mlp" else (1, 28, 28)
    torch.manual_seed(1)
    y = torch.arange(25) % 5
    return torch.randn(25, *shape), y, torch.randn(25, *shape), y


def engines() -> dict[str, Any]:
    from rbml.hypergrad import Adjoint, Forward, Unrolled

    return {
        "unrolled": Unrolled(),
        "all": Adjoint(keep=1),
        "segments": Adjoint(store="segments"),
        "reverse": Adjoint(store="reverse"),
        "exact": Adjoint(store="reverse", exact=True),
        "forward": Forward(),
    }


def learner_of(engine: str, net: str, steps: int, **options: Any) -> Any:
    from rbml.algorithms.options import assemble
    from rbml.strategy import Hyper, chain, momentum, sgd, weight_decay

    decay = Hyper(DECAY) if engine == "forward" else DECAY
    rules = chain(weight_decay(PULL), momentum(decay), sgd(Hyper(RATE)))
    learner = assemble(network(net), rules, steps, hypergradient=engines()[engine], **options)
    learner.model.requires_grad_(engine != "forward")
    return learner


def ours(engine: str, net: str) -> Callable[[int], Found]:
    from rbml import Batch, Episode

    x, y, qx, qy = task(net)

    def run(steps: int) -> Found:
        learner = learner_of(engine, net, steps)
        m = {name: leaf.detach() for name, leaf in learner.named_parameters() if leaf.requires_grad}
        result = learner.hypergradient(learner.inner(Episode(Batch(x, y), Batch(qx, qy))), m)
        return float(result.grads["phi.sgd.lr"]), {name: float(leaf) for name, leaf in result.info.items()}

    return run


def by_higher(net: str) -> Callable[[int], Found]:
    import higher  # type: ignore[import-not-found,unused-ignore]

    x, y, qx, qy = task(net)

    def run(steps: int) -> Found:
        module, rate = network(net), torch.tensor(RATE, requires_grad=True)
        optimizer = torch.optim.SGD(module.parameters(), lr=RATE, momentum=DECAY, weight_decay=PULL)
        with higher.innerloop_ctx(module, optimizer, override={"lr": [rate]}, copy_initial_weights=False) as (
            own,
            step,
        ):
            for _ in range(steps):
                step.step(F.cross_entropy(own(x), y))
            found = torch.autograd.grad(F.cross_entropy(own(qx), qy), [rate, *module.parameters()])
        return float(found[0]), {}

    return run


def by_torchopt(net: str) -> Callable[[int], Found]:
    import torchopt  # type: ignore[import-not-found,unused-ignore]

    x, y, qx, qy = task(net)

    def run(steps: int) -> Found:
        module, rate = network(net), torch.tensor(RATE, requires_grad=True)
        first = list(module.parameters())
        optimizer = torchopt.MetaSGD(module, lr=lambda count: rate, momentum=DECAY, weight_decay=PULL)
        for _ in range(steps):
            optimizer.step(F.cross_entropy(module(x), y))
        found = torch.autograd.grad(F.cross_entropy(module(qx), qy), [rate, *first])
        return float(found[0]), {}

    return run


def runner(engine: str, net: str) -> Callable[[int], Found]:
    if engine == "higher":
        return by_higher(net)
    return by_torchopt(net) if engine == "torchopt" else ours(engine, net)


def worker(engine: str, net: str, steps: int, limit: float) -> None:
    """Print the peak above the base in MiB, the seconds, the derivative by the learning rate and the diagnostics."""
    torch.set_num_threads(1)
    run = runner(engine, net)
    run(2)  # two steps, so that both ways in which Adjoint differentiates a step are loaded
    gc.collect()
    most = status("VmSize") * 1024 + int(limit * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (VmHWM)
    base, began = status("VmRSS"), time.perf_counter()
    found, info = run(steps)
    seconds = time.perf_counter() - began
    print(json.dumps({"mib": (status("VmHWM") - base) / 1024, "seconds": seconds, "by_rate": found, "info": info}))


def status(field: str) -> int:
    """Return a field of this process's status in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measured(engine: str, net: str, steps: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the result of a separate process, or the reason why it has none."""
    python = chosen.peers if engine in PEERS else sys.executable
    command = [python, __file__, "worker", engine, net, str(steps), str(chosen.limit)]
    # With fixed thresholds glibc returns freed memory at once, so that the peak is memory that was really in use.
    given_back = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    environment = os.environ | given_back | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=chosen.patience)
    except subprocess.TimeoutExpired:
        return {"why": f"> {chosen.patience:.0f} s"}
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    full = any(word in done.stderr for word in ("MemoryError", "not enough memory", "alloc", "Cannot allocate"))
    return {"why": f"> {chosen.limit:g} GiB" if full or done.returncode < 0 else done.stderr.splitlines()[-1][:60]}


def memory(chosen: argparse.Namespace) -> None:
    names = [name for name in chosen.engines if name not in PEERS or chosen.peers]
    table: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in names}
    print(f"{chosen.net}: peak MiB above the base (seconds) at T")
    print(f"{'':10}" + "".join(f"{steps:>20}" for steps in chosen.steps), flush=True)
    for name in names:
        cells = []
        for steps in chosen.steps:
            failed = [found for found in table[name].values() if "why" in found]
            found = failed[0] if failed else measured(name, chosen.net, steps, chosen)  # more steps would fail too
            table[name][steps] = found
            cells.append(found.get("why") or f"{found['mib']:.1f} ({found['seconds']:.1f})")
        print(f"{name:10}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    agree(table)
    for name, row in table.items():
        for steps, found in row.items():
            if info := found.get("info"):
                print(f"{name}, T={steps}: " + ", ".join(f"{key} {value:.3g}" for key, value in info.items()))
    if chosen.figure:
        figure(table, chosen)


def expected(chosen: argparse.Namespace) -> None:
    """Print the prediction of ``rbml.explain`` next to the measurement."""
    from rbml import Batch, Episodes
    from rbml.diagnostics.explaining import explain

    torch.set_num_threads(1)
    x, y, qx, qy = (leaf[None] for leaf in task(chosen.net))
    print(f"{chosen.net}: expected and measured, MiB and seconds")
    for steps in chosen.steps:
        for name in EXPECTED:
            learner = learner_of(name, chosen.net, steps)
            found = explain(learner, Episodes(Batch(x, y), Batch(qx, qy)), memory=2.0**40)
            row = next(row for row in found.rows if row.name == EXPECTED[name])
            came = measured(name, chosen.net, steps, chosen)
            real = came.get("why") or f"{came['mib']:8.1f} {came['seconds']:8.2f}"
            print(f"T={steps:<6} {name:9} {row.memory / 2**20:8.1f} {row.seconds:8.2f}   {real}", flush=True)


def agree(table: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Print how far the derivatives by the learning rate are from their median, and which are not finite."""
    for steps in next(iter(table.values())):
        found = {name: row[steps]["by_rate"] for name, row in table.items() if "by_rate" in row[steps]}
        numbers = {name: value for name, value in found.items() if math.isfinite(value)}
        lost = "".join(f"; {name} has none" for name in found if name not in numbers)
        if len(numbers) > 1:
            middle = statistics.median(numbers.values())
            apart = ", ".join(f"{name} {abs(value / middle - 1):.0e}" for name, value in numbers.items())
            print(f"T={steps}: derivatives by the rate, from their median: {apart}{lost}")


def figure(table: dict[str, dict[int, dict[str, Any]]], chosen: argparse.Namespace) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(figsize=(6, 4.2), layout="constrained")
    for name, row in table.items():
        seen = [(steps, max(found["mib"], 0.1)) for steps, found in row.items() if "mib" in found]
        if seen:
            axes.loglog(*zip(*seen, strict=True), "o--" if name in PEERS else "o-", label=name)
    axes.set(xlabel="T, inner steps", ylabel="peak MiB above the base process", title=f"{chosen.net}, 5-way 5-shot")
    axes.grid(alpha=0.3)
    axes.legend()
    fig.savefig(chosen.figure, dpi=150)
    print(f"wrote {chosen.figure}")


class Traced:
    """Replay the simplified trace that ``compile=True`` would compile, without compiling it."""

    def __init__(self) -> None:
        self.graphs: dict[Any, Any] = {}

    def __call__(self, function: Callable[..., Any], *arguments: Any, variant: Any = None) -> Any:
        from rbml.autodiff.compiled import traced

        arguments = tree_map(lambda leaf: leaf.contiguous(), arguments)
        if variant not in self.graphs:
            self.graphs[variant] = traced(function, *arguments)
        return self.graphs[variant](*arguments)


def timed(chosen: argparse.Namespace) -> None:
    from rbml import Batch, Episodes

    torch.set_num_threads(chosen.threads)
    clock = time.perf_counter if chosen.clock == "wall" else time.process_time
    names = ("unrolled", "all", "segments")
    stacked = [torch.stack([leaf] * chosen.tasks) for leaf in task(chosen.net)]
    episodes = Episodes(Batch(stacked[0], stacked[1]), Batch(stacked[2], stacked[3]))
    for steps in chosen.steps:
        runs: dict[str, Callable[[], object]] = {}
        for name in names:
            learner = learner_of(name, chosen.net, steps, compile=chosen.compile, chunk=64)
            if chosen.trace:
                learner.compiled = Traced()
            runs[name] = lambda learner=learner: learner.meta_gradient(episodes)  # type: ignore[misc]
            for _ in range(2):
                runs[name]()
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(chosen.rounds):
            for name, run in runs.items():
                began = clock()
                run()
                seconds[name].append(clock() - began)
        middle = {name: statistics.median(row) for name, row in seconds.items()}
        best = {name: min(row) for name, row in seconds.items()}
        cells = ", ".join(f"{name} {1e3 * middle[name]:.1f} ms (best {1e3 * best[name]:.1f})" for name in names)
        how = ", compiled" * chosen.compile + ", traced" * chosen.trace
        print(f"{chosen.net}, {chosen.tasks} tasks, T={steps}{how}: {cells}")
        for one, other in (("all", "unrolled"), ("segments", "all")):
            print(f"    {one} / {other}: {middle[one] / middle[other]:.2f} (best {best[one] / best[other]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    mem = commands.add_parser("memory")
    mem.set_defaults(run=memory)
    mem.add_argument("--engines", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    mem.add_argument("--peers", help="the Python in which higher and torchopt are installed")
    mem.add_argument("--figure", help="PNG file to write")
    expect = commands.add_parser("expected")
    expect.set_defaults(run=expected)
    for command in (mem, expect):
        command.add_argument("--limit", type=float, default=8.0, help="GiB of additional memory per process")
        command.add_argument("--patience", type=float, default=600.0, help="time limit per process in seconds")
    clock = commands.add_parser("time")
    clock.set_defaults(run=timed)
    clock.add_argument("--tasks", type=int, default=4)
    clock.add_argument("--rounds", type=int, default=9)
    clock.add_argument("--threads", type=int, default=1)
    clock.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    clock.add_argument("--trace", action="store_true", help="replay traces instead of compiling them")
    clock.add_argument("--compile", action="store_true")
    for command, steps in ((mem, [1, 10, 100, 1000]), (expect, [10, 100]), (clock, [5])):
        command.add_argument("--net", choices=["mlp", "conv4"], default="mlp")
        command.add_argument("--steps", type=int, nargs="+", default=steps)
    chosen = parser.parse_args()
    chosen.run(chosen)


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
    else:
        main()
