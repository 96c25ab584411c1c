"""Regression of sinusoids with an MLP 1-40-40-1 (Finn et al. 2017, arXiv:1703.03400, section 5.1)."""

from __future__ import annotations

from functools import partial

import numpy as np

from speed.networks import mlp
from speed.problem import Data, Problem


def make(tasks: int = 25, shots: int = 10, steps: int = 5, width: int = 40) -> Problem:
    draw = np.random.default_rng(0)
    height, shift = draw.uniform(0.1, 5, (tasks, 1, 1)), draw.uniform(0, np.pi, (tasks, 1, 1))
    x = draw.uniform(-5, 5, (tasks, 2 * shots, 1))
    y = height * np.sin(x - shift)
    data = Data(x[:, None, :shots], y[:, None, :shots], x[:, shots:], y[:, shots:])
    about = f"sinusoid, MLP 1-{width}-{width}-1: {tasks} tasks, {shots} shots, {steps} steps"
    return Problem(about, partial(mlp, 1, width, width, 1), data, steps, 0.01, form="mlp")
