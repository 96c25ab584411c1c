"""What --precision bfloat16 costs and gains: the meta-gradient beside that of float32, and the time of both.

    python benchmarks/precision.py                     # cpu, one thread, about a minute
    python benchmarks/precision.py --device cuda

Networks with new weights on drawn glyphs, 28x28. The error is that of the whole meta-gradient, relative to its norm;
the ratio is the time in float32 over that in bfloat16, turn by turn, the median (processor time on a processor).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import rbml
from rbml import algorithms
from rbml.devices import computing, find, wait
from rbml.learner import Learner
from rbml.tasks import FewShot, generator


class Rows(nn.Module):
    """A transformer that reads a picture row by row."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True)
        self.embed, self.body, self.head = nn.Linear(28, width), nn.TransformerEncoder(layer, 2), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(self.embed(x.flatten(1, 2))).mean(1))
        return found


ROWS: dict[str, tuple[Callable[[], Learner], tuple[int, int, int], int]] = {
    "Conv4-64, MAML, 5-way 5-shot, 1 step": (
        lambda: algorithms.maml(rbml.models.Conv4(5), lr=0.1, steps=1), (5, 5, 5), 8),
    "Conv4-64, MAML, 20-way 1-shot, 5 steps": (
        lambda: algorithms.maml(rbml.models.Conv4(20), lr=0.1, steps=5), (20, 1, 1), 4),
    "Conv4-64 with max pooling, ProtoNet, 60-way 1-shot": (
        lambda: algorithms.protonet(rbml.models.Conv4(60, pool="max")), (60, 1, 1), 4),
    "transformer, 256 wide, MAML, 5-way 5-shot, 1 step": (
        lambda: algorithms.maml(Rows(), lr=0.01, steps=1), (5, 5, 5), 4),
    "transformer, 256 wide, MAML, 5-way 5-shot, 3 steps": (
        lambda: algorithms.maml(Rows(), lr=0.01, steps=3), (5, 5, 5), 4),
    "transformer, 256 wide, ProtoNet, 5-way 5-shot": (
        lambda: algorithms.protonet(Rows()), (5, 5, 5), 4),
}  # fmt: skip
"""What makes a learner; ways, shots and queries of its tasks; and how many of them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    device = find(chosen.device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    torch.set_num_threads(1)
    glyphs = rbml.data.load("glyphs", "train")
    print("| | float32, ms | bfloat16, ms | ratio | relative error |\n| --- | ---: | ---: | ---: | ---: |")
    for name, (make, (ways, shots, queries), count) in ROWS.items():
        torch.manual_seed(0)
        source = FewShot(glyphs, ways=ways, shots=shots, queries=queries).to(device)
        learner, tasks = make().to(device), source.sample(count, generator(0, 0))
        times: dict[str, list[float]] = {"float32": [], "bfloat16": []}
        found: dict[str, Tensor] = {}
        for _ in range(chosen.rounds + 1):
            for precision, taken in times.items():
                with computing(precision, device):
                    began = clock()
                    grads = learner.meta_gradient(tasks).grads
                    wait(device)
                    taken.append(1000 * (clock() - began))
                found[precision] = torch.cat([leaf.flatten().double() for leaf in grads.values()])
        exact, rounded = (taken[1:] for taken in times.values())  # the first turn verifies
        ratio = statistics.median(one / other for one, other in zip(exact, rounded, strict=True))
        error = (found["bfloat16"] - found["float32"]).norm() / found["float32"].norm()
        print(f"| {name} | {statistics.median(exact):.0f} | {statistics.median(rounded):.0f} | {ratio:.2f} | "
              f"{error:.2%} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
