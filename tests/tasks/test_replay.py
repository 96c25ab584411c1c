"""The memory of a stream: against the algorithm as it is written down, uniform, and the same for every way to ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import func, nn
from torch.utils._pytree import tree_leaves

from rbml import Batch, Stream, models, random
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled
from rbml.learner import frozen
from rbml.strategy import Hyper, sgd
from rbml.tasks import Replay, generator
from rbml.tasks.base import one
from rbml.tree import Tree


def replays(count: int = 2, steps: int = 9, memory: int = 4, again: int = 3) -> Replay:
    x = torch.arange(count * steps * 2.0).reshape(count, steps, 2, 1)
    y = torch.randint(3, (count, steps, 2), generator=generator(0))
    query = Batch(
        torch.randn(count, 5, 1, generator=generator(1)), torch.randint(3, (count, 5), generator=generator(2))
    )
    return Replay.of(Stream(Batch(x, y), query), memory, again, list(range(count)))


def test_it_is_the_reservoir_as_it_is_written_down() -> None:
    task = one(replays(), 1)
    draws = random.uniform(task.key, "memory", torch.zeros(18, dtype=torch.float64))
    held: list[int] = []
    for t in range(9):
        batch = task.at(t)
        assert batch.mask["index"][:2].tolist() == [2 * t, 2 * t + 1]
        assert batch.mask["example"].tolist() == [True, True] + [t > 0] * 3
        if t:
            assert set(batch.mask["index"][2:].tolist()) <= set(held)
            assert torch.equal(batch.x[:, 0], batch.mask["index"] + 18.0)
            assert torch.equal(batch.y, task.support.y[batch.mask["index"]])
        for number in (2 * t, 2 * t + 1):
            if number < 4:
                held.append(number)
            elif (place := int(draws[number] * (number + 1))) < 4:
                held[place] = number


def test_every_earlier_example_is_equally_likely() -> None:
    tasks = replays(count=3000, steps=6)
    seen = func.vmap(lambda task: task.repeated(5))(tasks).flatten().tolist()
    found = Counter(seen)
    assert set(found) == set(range(10))
    assert max(abs(number - 900) for number in found.values()) < 150  # three draws of one memory are not independent


def test_a_step_is_the_same_however_it_is_asked_for() -> None:
    tasks = replays()
    for t in (0, 3, 8):
        stacked = func.vmap(lambda each, t=t: each.at(torch.tensor(t)))(tasks)
        alone = one(tasks, 1).at(t)
        assert all(torch.equal(a[1], b) for a, b in zip(tree_leaves(stacked), tree_leaves(alone), strict=True))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_meta_gradient_with_the_body_once_and_at_every_step(
    norm: str, error: Callable[[Tree, Tree], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch norm sees the examples that are repeated along with a new one, so that its body must run at every step."""
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4) if norm == "batch" else nn.Identity()
    body = nn.Sequential(nn.Linear(1, 4, bias=norm == "none"), layer, nn.Tanh(), nn.Linear(4, 3)).double()
    tasks = replays(memory=6)
    tasks = Replay(*(part._replace(x=part.x.double() / 20) for part in tasks[:2]), *tasks[2:])
    learner = assemble(body, sgd(Hyper(0.3)), 9, adapt="head", hypergradient=Adjoint(keep=1))
    bound = learner.bind(one(tasks, 0))
    assert frozen.frozen_body(bound) == ("3" if norm == "none" else None)
    found = learner.meta_gradient(tasks).grads
    monkeypatch.setattr("rbml.learner.meta.frozen_body", lambda *_: None)
    truth = assemble(body, sgd(Hyper(0.3)), 9, adapt="head", hypergradient=Unrolled()).meta_gradient(tasks).grads
    assert error(found, truth) < 1e-9


def test_wrong_numbers_are_refused() -> None:
    stream = replays().stream
    with pytest.raises(UsageError, match="memory and again must be at least 1, not 0 and 3"):
        Replay.of(stream, 0, 3, [1, 2])
    with pytest.raises(UsageError, match="2 streams need one key each, not 1"):
        Replay.of(stream, 4, 3, [1])
    with pytest.raises(UsageError, match="data for 9 inner steps, and the learner takes 4"):
        assemble(models.MLP(1, 3, (4,)), sgd(0.1), 4).meta_gradient(replays())
