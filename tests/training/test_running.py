"""Going on from an adapted model without its examples: the same as all at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rbml import Batch, models
from rbml.algorithms import protonet, streaming_lda
from rbml.errors import UsageError
from rbml.tasks import generator
from rbml.training.running import go_on

X = torch.randn(60, 6, generator=generator(0)) + (torch.arange(60) % 6)[:, None]
Y = torch.arange(60) % 6


def test_in_parts_it_is_the_model_of_all_examples() -> None:
    torch.manual_seed(0)
    learner = streaming_lda(models.MLP(6, 3, (8,)))
    early = Y < 3
    first = go_on(learner, Batch(X[early], Y[early]), 3)
    later = go_on(learner, Batch(X[~early], Y[~early]), 6, first.remembered)
    whole = learner.adapt(X, Y, ways=6)
    assert torch.allclose(later.adapted(X), whole(X), rtol=1e-3, atol=1e-3)
    assert first.adapted(X).shape == (60, 3) and first.remembered.sums.second.shape == (8, 8)
    assert torch.allclose(first.adapted(X[early]), learner.adapt(X[early], Y[early], ways=3)(X[early]), atol=1e-3)


def test_stored_statistics_of_batch_norm_are_used_and_those_of_a_batch_refused() -> None:
    def net() -> models.Conv4:
        torch.manual_seed(0)
        return models.Conv4(3, filters=4)

    pictures = torch.rand(12, 1, 16, 16, generator=generator(1))
    labels = torch.arange(12) % 3
    learner = streaming_lda(net(), statistics="running")
    parts = go_on(learner, Batch(pictures[:6], labels[:6]), 3)
    parts = go_on(learner, Batch(pictures[6:], labels[6:]), 3, parts.remembered)
    assert torch.allclose(parts.adapted(pictures), learner.adapt(pictures, labels)(pictures), rtol=1e-2, atol=1e-2)
    with pytest.raises(UsageError, match="batch norm makes features depend on the other examples"):
        go_on(streaming_lda(net()), Batch(pictures, labels), 3)


def test_what_cannot_go_on_is_refused() -> None:
    with pytest.raises(UsageError, match="needs a head from running sums"):
        go_on(protonet(models.MLP(6, 3, (8,))), Batch(X, Y), 6)
    with pytest.raises(UsageError, match="ways=4, but there are 6 classes with the new ones"):
        go_on(streaming_lda(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))), Batch(X, Y), 4)
