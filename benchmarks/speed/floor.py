"""The least time that a problem's arithmetic could take here: its multiplications at the speed of a matrix product."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from speed.contenders import plain
from speed.problem import Data, Problem


def operations(problem: Problem) -> float:
    """Return the floating-point operations of the plain loop's products and convolutions, which take nothing twice."""
    first = Data(*(leaf[:1] for leaf in problem.data))
    run: Any = plain.make(replace(problem, data=first), torch.float32)
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()) * len(problem.data.x)


def rate(size: int = 1024, times: int = 20) -> float:
    """Return the best floating-point operations per second of a matrix product, on all threads.

    In processor seconds, so that other jobs on the machine do not count.
    """
    one, other = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(times):
        began = time.process_time()
        one @ other
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best * torch.get_num_threads()
