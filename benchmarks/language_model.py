"""The meta-gradient through the training of a small language model: peak memory and time of every engine.

    python benchmarks/language_model.py            # 6 layers of 384, 128 bytes, 50 steps: some minutes per row
    python benchmarks/language_model.py --steps 10 --rows plain adjoint

One training run of T steps on one sequence each, by SGD with a learned rate per layer; the meta-gradient is that of the
loss of another sequence after it, with respect to all starting weights and the rates. The bytes are random: memory and
time do not depend on them. Every row runs in a process of its own, one after another; ``MiB`` is its peak above what it
had before. ``error`` is the distance from the plain loop in double precision on a smaller model, relative.

Rows: ``plain`` is a loop with ``functional_call`` and ``autograd.grad``; ``blocks`` the same, where each block of the
model is computed again on the way back (``torch.utils.checkpoint``); the others are engines of rbml.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import rbml
from rbml.hypergrad import Adjoint, Hypergradient, Unrolled
from rbml.strategy import Hyper, sgd
from rbml.tree import Tree

ENGINES: dict[str, Hypergradient] = {
    "unrolled": Unrolled(),
    "adjoint": Adjoint(keep=1),
    "segments": Adjoint(store="segments"),
    "reverse over reverse": Adjoint(keep=1, hvp="reverse"),
}
ROWS = ("plain", "blocks", *ENGINES)
RATE = 0.01


class Block(nn.Module):
    """Causal attention and two layers, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        query, key, value = (
            part.view(rows, length, self.heads, -1).transpose(1, 2) for part in self.mixed(self.before(x)).chunk(3, -1)
        )
        scores = query @ key.transpose(-1, -2) / (width / self.heads) ** 0.5
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        seen = scores.masked_fill(later, -torch.inf).softmax(-1) @ value
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, width))
        out: Tensor = x + self.narrow(nn.functional.gelu(self.wide(self.after(x))))
        return out


class Language(nn.Module):
    """A transformer over bytes; ``again`` computes each block again on the way back."""

    def __init__(self, layers: int, width: int, length: int, again: bool = False) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width, max(1, width // 64)) for _ in range(layers))
        self.norm, self.head, self.again = nn.LayerNorm(width), nn.Linear(width, 256), again

    def forward(self, x: Tensor) -> Tensor:
        x = self.bytes(x) + self.places
        for block in self.blocks:
            x = _again(block, x) if self.again else block(x)
        out: Tensor = self.head(self.norm(x))
        return out


def _again(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block that is computed again on the way back.

    Its parameters are arguments: on the way back ``functional_call`` has ended, and the module has its own again, with
    which the derivative would be wrong without a word.
    """
    out: Tensor = checkpoint(partial(functional_call, block), dict(block.named_parameters()), (x,), use_reentrant=False)
    return out


def next_byte(logits: Tensor, y: Tensor) -> Tensor:
    """Return the loss of predicting every byte from those before it."""
    return cross_entropy(logits.flatten(0, -2), y.flatten())


def plainly(model: nn.Module, stream: Tensor, query: Tensor) -> Tree:
    """Return the meta-gradient by one graph of all steps."""
    start = {name: leaf.detach().requires_grad_() for name, leaf in model.named_parameters()}
    rates = {name: leaf.detach().new_tensor(RATE).requires_grad_() for name, leaf in start.items()}

    def loss(theta: Tree, x: Tensor) -> Tensor:
        return next_byte(functional_call(model, theta, (x[:, :-1],)), x[:, 1:])

    theta = dict(start)
    for x in stream:
        grads = torch.autograd.grad(loss(theta, x), list(theta.values()), create_graph=True)
        theta = {name: leaf - rates[name] * grad for (name, leaf), grad in zip(theta.items(), grads, strict=True)}
    found = torch.autograd.grad(loss(theta, query), [*start.values(), *rates.values()])
    return dict(zip([*start, *(f"rate of {name}" for name in rates)], found, strict=True))


def by_engine(engine: Hypergradient, model: nn.Module, stream: Tensor, query: Tensor) -> Tree:
    """Return the meta-gradient of a learner."""
    learner = rbml.Learner(
        model, sgd(Hyper(RATE, per="tensor")), len(stream), loss=next_byte, hypergradient=engine,
        execution=rbml.Execution(verify=False),
    )  # fmt: skip
    task = rbml.Stream(
        rbml.Batch(stream[None, ..., :-1], stream[None, ..., 1:]), rbml.Batch(query[None, :, :-1], query[None, :, 1:])
    )
    return dict(learner.meta_gradient(task).grads)


def ways(row: str) -> Callable[[nn.Module, Tensor, Tensor], Tree]:
    return partial(by_engine, ENGINES[row]) if row in ENGINES else plainly


def problem(chosen: argparse.Namespace, row: str, dtype: torch.dtype, small: bool) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the model and the bytes; the small one is for a comparison in double precision."""
    torch.manual_seed(0)
    layers, width, length, steps = (
        (2, 32, 16, 3) if small else (chosen.layers, chosen.width, chosen.length, chosen.steps)
    )
    model = Language(layers, width, length, row == "blocks").to(dtype)
    stream = torch.randint(256, (steps, 1, length + 1))
    return model, stream, torch.randint(256, (1, length + 1))


def peak() -> float:
    """Return the highest resident memory of this process so far, in MiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(chosen: argparse.Namespace, row: str, dtype: torch.dtype) -> dict[str, float]:
    """Measure one row in this process."""
    double = problem(chosen, row, torch.float64, small=True)
    truth, found = plainly(*problem(chosen, "plain", torch.float64, small=True)), ways(row)(*double)
    # Values in their order: theta0, then the rates.
    error = max(
        float((own.double() - one).norm() / one.norm().clamp(min=1e-30))
        for own, one in zip(found.values(), truth.values(), strict=True)
    )
    made = problem(chosen, row, dtype, small=False)
    before, began, used = peak(), time.perf_counter(), time.process_time()
    ways(row)(*made)
    return {
        "mib": peak() - before, "wall": time.perf_counter() - began, "cpu": time.process_time() - used, "error": error,
    }  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--types", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs=2, metavar=("ROW", "TYPE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.only:
        print(json.dumps(measure(chosen, chosen.only[0], getattr(torch, chosen.only[1]))))
        return
    print(f"{chosen.layers} layers of {chosen.width}, {chosen.length} bytes, {chosen.steps} steps")
    print("| | type | MiB | seconds | processor seconds | error |\n| --- | --- | --- | --- | --- | --- |")
    sizes = [f"--{name}={getattr(chosen, name)}" for name in ("layers", "width", "length", "steps", "threads")]
    for dtype in chosen.types:
        for row in chosen.rows:
            told = subprocess.run(
                [sys.executable, __file__, *sizes, "--only", row, dtype], capture_output=True, text=True, check=False
            )
            if told.returncode:
                reason = (told.stderr.strip().splitlines() or ["killed: out of memory?"])[-1]
                print(f"| {row} | {dtype} | - | - | - | {reason} |", flush=True)
                continue
            one = json.loads(told.stdout.splitlines()[-1])
            cells = f"{one['mib']:.0f} | {one['wall']:.1f} | {one['cpu']:.1f} | {one['error']:.0e}"
            print(f"| {row} | {dtype} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
