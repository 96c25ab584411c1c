"""Learners on streams: against a loop by hand, what the measures mean, and rates inside their grid."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rbml import models
from rbml.algorithms import oml, streaming_lda
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.strategy import chain, cosine, fresh_rows, prototype, sgd
from rbml.tasks import Continual, Replay, generator
from rbml.tasks.base import one
from rbml.training.continual import StreamScores, choose, follow

X = torch.randn(120, 6, generator=generator(0)) + torch.arange(120)[:, None] // 10 * torch.randn(
    6, generator=generator(1)
)
SOURCE = Continual((X, torch.arange(120) // 10), ways=6, shots=4, queries=3, batch=2)


def net(outputs: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return models.MLP(6, outputs, (8,))


def test_a_learner_that_takes_steps_is_a_loop() -> None:
    streams = SOURCE.draw([1, 2])
    learner = assemble(net(), chain(sgd(0.2), cosine(), fresh_rows(when="arrival")), 5, adapt="head")
    found = follow(learner, streams, (2, 4, 6))
    task = one(streams, 1)
    features = learner.model.body(task.support.x).detach()
    weight, bias = torch.zeros(6, 8), torch.zeros(6)
    weight.copy_(learner.model.head.weight.detach()), bias.copy_(learner.model.head.bias.detach())
    for t in range(12):
        x, y = features[2 * t : 2 * t + 2], task.steps.y[t]
        if t % 2 == 0:
            weight[t // 2], bias[t // 2] = 0, 0
        logits = x @ weight.T + bias
        error = (logits.softmax(1) - F.one_hot(y, 6)) / 2
        rate = 0.2 * 0.5 * (1 + math.cos(math.pi * t / 12))  # the schedule ends with the stream, not with five steps
        weight, bias = weight - rate * error.T @ x, bias - rate * error.sum(0)
        if t in (3, 7, 11):
            seen = (t + 1) // 2
            guess = (learner.model.body(task.query.x) @ weight.T + bias)[:, :seen].argmax(1)
            assert torch.equal(found.right[1, seen // 2 - 1], guess == task.query.y)
    assert found.since[0].tolist() == [0] * 6 + [1] * 6 + [2] * 6


def test_a_head_from_examples_grows_and_forgets_nothing_it_could_know() -> None:
    streams = SOURCE.draw([1])
    learner = streaming_lda(net(3))
    found = follow(learner, streams, (3, 6))
    task = one(streams, 0)
    for mark, row in ((3, 0), (6, 1)):
        few = task.support.y < mark
        adapted = learner.adapt(task.support.x[few], task.support.y[few], ways=mark)
        guess = adapted(task.query.x).argmax(1)
        assert torch.equal(found.right[0, row], guess == task.query.y)


def test_streams_with_a_memory_are_followed_too() -> None:
    streams = Replay.of(SOURCE.draw([1, 2]), 8, 3, [5, 6])
    found = follow(oml(net(), lr=0.1), streams, (3, 6))
    assert found.right.shape == (2, 2, 18)


def test_what_the_measures_mean() -> None:
    since = torch.tensor([[0, 0, 1, 1]])
    right = torch.tensor([[[True, True, False, False], [True, False, True, True]]])
    scores = StreamScores((1, 2), right, since)
    assert [score.mean for score in scores.accuracy()] == [1.0, 0.75]
    assert (scores.retained().mean, scores.learning().mean, scores.backward().mean) == (0.75, 1.0, -0.5)
    assert math.isnan(StreamScores((2,), right[:, :1], since * 0).backward().mean)


def test_forward_transfer_is_against_a_stream_that_begins_with_the_classes() -> None:
    streams = SOURCE.draw([1, 2])
    learner = oml(net(), lr=0.3)
    found = follow(learner, streams, (2, 4, 6), forward=True)
    assert found.among is not None and torch.equal(found.right, follow(learner, streams, (2, 4, 6)).right)
    task = one(streams, 1)
    for mark, steps in ((1, slice(4, 8)), (2, slice(8, 12))):
        features = learner.model.body(task.steps.x[steps].flatten(0, 1)).detach()
        weight, bias = torch.zeros(6, 8), torch.zeros(6)
        for x, y in zip(features.split(2), task.steps.y[steps], strict=True):
            error = ((x @ weight.T + bias).softmax(1) - F.one_hot(y, 6)) / 2
            weight, bias = weight - 0.3 * error.T @ x, bias - 0.3 * error.sum(0)
        logits = learner.model.body(task.query.x) @ weight.T + bias
        mine = found.since[1] == mark
        guess = logits[:, 2 * mark : 2 * mark + 2].argmax(1) + 2 * mark
        assert torch.equal(found.among[1, 1][mine], (guess == task.query.y)[mine])
    assert torch.equal(found.among[:, 0, :6], found.right[:, 0, :6]), "the first classes are alone"
    assert torch.equal(found.among[:, 0, :6], found.among[:, 1, :6])
    gain = (found.among[:, 0].double() - found.among[:, 1].double())[:, 6:].mean()
    assert found.forward().mean == pytest.approx(gain.item())
    means = assemble(net(), chain(prototype(), sgd(0.1)), 0, adapt="head")
    assert follow(means, streams, (2, 4, 6), forward=True).forward().mean == 0, "a class mean knows no other class"
    assert math.isnan(follow(means, streams, (6,), forward=True).forward().mean)
    with pytest.raises(UsageError, match="was not measured"):
        follow(means, streams, (6,)).forward()
    with pytest.raises(UsageError, match="needs streams without a memory"):
        follow(learner, Replay.of(streams, 8, 3, [5, 6]), (3, 6), forward=True)


def test_a_rate_lies_inside_its_grid_unless_there_is_no_inside() -> None:
    asked = []

    def score(rate: float) -> float:
        asked.append(rate)
        return math.nan if rate > 50 else -abs(math.log10(rate) + 2)

    found = choose(score, [1.0, 10.0, 100.0])
    assert found.inside and found.value == pytest.approx(0.01) and len(asked) == len(set(asked)) == 6
    endless = choose(lambda rate: rate, [1.0, 2.0])
    assert not endless.inside and endless.value == 2.0**13


def test_what_cannot_be_followed_is_refused() -> None:
    streams: Tensor = SOURCE.draw([1])
    for marks in ((), (0, 2), (4, 2), (3, 7)):
        with pytest.raises(UsageError, match="increasing numbers of classes, at most 6 in these streams"):
            follow(oml(net()), streams, marks)
    with pytest.raises(UsageError, match="a grid needs two or more increasing rates"):
        choose(lambda rate: rate, [0.1])
