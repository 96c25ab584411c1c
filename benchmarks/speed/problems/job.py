"""A whole training run: an MLP on pictures of digits, mini-batch by mini-batch."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from rbml.tasks import Batch, Job
from speed.networks import mlp
from speed.problem import Data, Problem


def make(steps: int = 1000, size: int = 32, examples: int = 1024, width: int = 64) -> Problem:
    draw = np.random.default_rng(0)
    teacher = draw.normal(size=(64, 10))
    x = draw.normal(size=(examples + 256, 64))
    y = (x @ teacher + 3 * draw.normal(size=(len(x), 10))).argmax(1)
    train, held_out = (x[:examples], y[:examples]), (x[examples:], y[examples:])

    def ours(dtype: torch.dtype) -> Any:
        (tx, ty), (vx, vy) = (
            (torch.from_numpy(one).to(dtype), torch.from_numpy(two)) for one, two in (train, held_out)
        )
        return Job.of(Batch(tx, ty), Batch(vx, vy), size, [0])

    # The others get the same mini-batches ready made; rbml gathers them itself, at every step.
    alone: Any = ours(torch.float64)
    alone = Job(*(_first(leaf) for leaf in alone))
    batches = [alone.at(t) for t in range(steps)]
    data = Data(
        np.stack([batch.x.numpy() for batch in batches])[None],
        np.stack([batch.y.numpy() for batch in batches])[None],
        held_out[0][None],
        held_out[1][None],
    )
    about = f"a job: MLP 64-{width}-10, {steps} mini-batches of {size}"
    return Problem(about, partial(mlp, 64, width, 10), data, steps, 0.1, form="mlp", ours=ours)


def _first(leaf: Any) -> Any:
    return Batch(leaf.x[0], leaf.y[0]) if isinstance(leaf, Batch) else leaf[0]
