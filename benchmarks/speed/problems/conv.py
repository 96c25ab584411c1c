"""Pictures of Omniglot's size with the strided Conv4-64; pixels are random, which changes no operator's time."""

from __future__ import annotations

from functools import partial

import numpy as np

from speed.networks import Conv4
from speed.problem import Data, Problem


def make(ways: int = 5, shots: int = 1, queries: int = 5, tasks: int = 32, steps: int = 1, width: int = 64) -> Problem:
    draw = np.random.default_rng(0)
    means = draw.normal(size=(tasks, ways, 1, 1, 28, 28))
    pictures = means + draw.normal(size=(tasks, ways, shots + queries, 1, 28, 28))
    labels = np.broadcast_to(np.arange(ways)[None, :, None], (tasks, ways, shots + queries))

    def flat(part: slice) -> tuple[np.ndarray, np.ndarray]:
        count = pictures[:, :, part].shape[2]
        return pictures[:, :, part].reshape(tasks, ways * count, 1, 28, 28), labels[:, :, part].reshape(tasks, -1)

    (x, y), (qx, qy) = flat(slice(shots)), flat(slice(shots, None))
    data = Data(x[:, None], y[:, None].copy(), qx, qy.copy())
    about = f"Conv4-{width}, {ways}-way {shots}-shot, {queries} queries per class: {tasks} tasks, {steps} steps"
    # At the kinks of ReLU code that is equal up to rounding takes other sides.
    return Problem(about, partial(Conv4, ways, width), data, steps, 0.1, form="conv4", tolerance=2e-2)


def five_shots() -> Problem:
    return make(shots=5)


def twenty_ways() -> Problem:
    return make(ways=20, queries=1, tasks=16, steps=5)
