"""The operators for which rbml has its own formulas, compared with PyTorch's: the time of each derivative.

    python benchmarks/operators.py
    python benchmarks/operators.py --tasks 1 --examples 5 --rounds 30

Batch norm with batch statistics and max pooling (2 by 2), float32, on the feature maps of the first two blocks of
Conv4: ``--tasks`` tasks of ``--examples`` images, 64 channels, vectorised over tasks as in a hypergradient. ``forward``
is the value, ``gradient`` the value and the gradient, ``adjoint`` the forward-mode derivative of the gradient
(``Adjoint``), ``unrolled`` its reverse-mode derivative (``Unrolled``). Processor milliseconds of one thread, both
implementations in turn, medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, func

from rbml.operators.batch_norm import batch_norm
from rbml.operators.max_pool import max_pool2d

Operator = Callable[..., Tensor]


def by_pytorch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, weight, bias, training=True)


def by_rbml(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return batch_norm(x, weight, bias, 1e-5)


OPERATORS: dict[str, tuple[Operator, Operator, int]] = {
    "batch norm": (by_rbml, by_pytorch, 3),
    "max pool": (lambda x: max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2), 1),
}
"""rbml's implementation, PyTorch's, and the number of tensors they take."""


def works(operator: Operator, point: tuple[Tensor, ...], along: tuple[Tensor, ...]) -> dict[str, Callable[[], Any]]:
    """Return the computations to time, by name."""
    gradient = func.grad(lambda *point: (operator(*point) ** 2).sum(), argnums=tuple(range(len(point))))

    def adjoint(*both: Tensor) -> Any:
        half = len(both) // 2
        return func.jvp(gradient, both[:half], both[half:])[1]

    def unrolled(*both: Tensor) -> Any:
        half = len(both) // 2
        return func.vjp(gradient, *both[:half])[1](both[half:])

    return {
        "forward": lambda: func.vmap(operator)(*point),
        "gradient": lambda: func.vmap(gradient)(*point),
        "adjoint": lambda: func.vmap(adjoint)(*point, *along),
        "unrolled": lambda: func.vmap(unrolled)(*point, *along),
    }


def seconds(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--examples", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'ms: rbml, PyTorch (ratio)':28}" + "".join(f"{name:>22}" for name in ("forward", "gradient")), end="")
    print("".join(f"{name:>22}" for name in ("adjoint", "unrolled")))
    for side in (28, 14):
        x = (chosen.tasks, chosen.examples, 64, side, side)
        shapes = (x, (chosen.tasks, 64), (chosen.tasks, 64))
        for name, (ours, theirs, arguments) in OPERATORS.items():
            point, along = (tuple(torch.randn(shape) for shape in shapes[:arguments]) for _ in range(2))
            cells = []
            for our_work, their_work in zip(
                works(ours, point, along).values(), works(theirs, point, along).values(), strict=True
            ):
                seconds(our_work), seconds(their_work)
                pairs = [(seconds(our_work), seconds(their_work)) for _ in range(chosen.rounds)]
                mine, native = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
                cells.append(f"{mine:.1f}, {native:.1f} ({mine / native:.2f})")
            print(f"{name + f', {side} x {side}':28}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
