"""The rows of the table: each file makes one problem, by default in the size that the table has."""

from __future__ import annotations

from collections.abc import Callable

from speed.problem import Problem
from speed.problems import conv, job, long, sinusoid, transformer

ALL: dict[str, Callable[..., Problem]] = {
    "sinusoid": sinusoid.make,
    "conv_5w1s": conv.make,
    "conv_5w5s": conv.five_shots,
    "conv_20w1s": conv.twenty_ways,
    "long": long.make,
    "job": job.make,
    "transformer": transformer.make,
}
