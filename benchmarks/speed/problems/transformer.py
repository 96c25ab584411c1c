"""A small transformer on sequences of vectors."""

from __future__ import annotations

from functools import partial

import numpy as np

from speed.networks import Transformer
from speed.problem import Data, Problem


def make(tasks: int = 8, ways: int = 5, shots: int = 5, steps: int = 5, width: int = 64, length: int = 16) -> Problem:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(tasks, 2 * ways * shots, length, width))
    y = np.tile(np.arange(2 * ways * shots) % ways, (tasks, 1))
    half = ways * shots
    data = Data(x[:, None, :half], y[:, None, :half].copy(), x[:, half:], y[:, half:].copy())
    about = (
        f"transformer, 2 blocks of {width}, {length} positions: {tasks} tasks, {ways}-way {shots}-shot, {steps} steps"
    )
    return Problem(about, partial(Transformer, ways, width), data, steps, 0.05, form="transformer")
