"""One task of many steps with the strided Conv4-64."""

from __future__ import annotations

from dataclasses import replace

from speed.problem import Problem
from speed.problems import conv


def make(steps: int = 100) -> Problem:
    # A smaller rate: the derivative of a hundred large steps is chaotic, and no two libraries would agree on it.
    return replace(conv.make(tasks=1, steps=steps), rate=0.005, tolerance=5e-2)
