from __future__ import annotations

from math import pi

import pytest
import torch

from rbml.errors import UsageError
from rbml.tasks import Sinusoid, generator, task_seeds


def test_points_lie_on_the_curve_of_their_task() -> None:
    tasks = Sinusoid(shots=4, queries=6)
    seeds = task_seeds(9, generator(0))
    support, query = tasks.draw(seeds)
    assert support.x.shape == support.y.shape == (9, 4, 1) and query.x.shape == query.y.shape == (9, 6, 1)
    assert support.x.dtype == query.y.dtype == torch.float32
    for task, seed in enumerate(seeds):
        amplitude, phase = tasks.curve(seed)
        for batch in (support, query):
            torch.testing.assert_close(batch.y[task], amplitude * torch.sin(batch.x[task] - phase))


def test_ranges_and_means_are_those_of_the_paper() -> None:
    tasks = Sinusoid(shots=5, queries=5)
    seeds = task_seeds(2000, generator(1))
    curves = torch.tensor([tasks.curve(seed) for seed in seeds])
    x = tasks.draw(seeds).support.x
    for values, low, high in ((curves[:, 0], 0.1, 5.0), (curves[:, 1], 0.0, pi), (x, -5.0, 5.0)):
        assert low <= float(values.min()) and float(values.max()) <= high
        error = (high - low) / (12 * values.numel()) ** 0.5
        assert abs(float(values.mean()) - (low + high) / 2) < 4 * error


@pytest.mark.parametrize("shots", [1, 5, 10])
def test_a_task_depends_on_its_seed_alone(shots: int) -> None:
    tasks = Sinusoid(shots=shots, queries=7)
    whole = tasks.sample(11, generator(3))
    few = tasks.sample(2, generator(3))
    assert torch.equal(few.support.y, whole.support.y[:2]) and torch.equal(few.query.y, whole.query.y[:2])
    alone = tasks.draw(task_seeds(11, generator(3))[10:])
    assert torch.equal(alone.query.y, whole.query.y[10:])


def test_numbers_must_be_positive() -> None:
    with pytest.raises(UsageError, match="shots must be at least 1, not 0"):
        Sinusoid(shots=0)
    with pytest.raises(UsageError, match="queries must be at least 1, not -2"):
        Sinusoid(queries=-2)
    with pytest.raises(UsageError, match="count must be at least 1"):
        Sinusoid().sample(0, generator(0))
