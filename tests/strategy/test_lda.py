"""Heads from running sums: against scikit-learn, in parts, in any order, and down to one example per class."""

from __future__ import annotations

import pytest
import torch
from torch import func

from rbml.strategy import Features, StepInfo, chain, lda, prototype, sgd
from rbml.strategy.lda import Sums, discriminant, left_out
from rbml.tasks import generator


def seen(n: int = 60, ways: int = 4, d: int = 5, seed: int = 0) -> Features:
    y = torch.arange(n) % ways
    mixing = torch.randn(d, d, generator=generator(9)).double()
    x = torch.randn(n, d, generator=generator(seed)).double() @ mixing + 2 * y[:, None]
    return Features(x, y, ways)


def test_it_is_the_shrunk_discriminant_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.discriminant_analysis")
    task = seen()
    made = sklearn.LinearDiscriminantAnalysis(solver="lsqr", shrinkage=None, priors=[0.25] * 4)
    made.fit(task.features.numpy(), task.y.numpy())
    weight, bias = discriminant(Sums.of(task), 0.0)
    ours = task.features @ weight.T + bias
    theirs = torch.as_tensor(made.decision_function(task.features.numpy()))
    gap = (ours - theirs) - (ours - theirs).mean(1, keepdim=True)  # what all classes share does not matter
    assert gap.abs().max() < 1e-4 * ours.std()


def test_parts_of_a_stream_add_up_whatever_their_order_and_classes() -> None:
    task = seen()
    first = Features(task.features[:30], task.y[:30] % 2, 2)  # has not heard of classes 2 and 3
    later = Features(task.features[30:], task.y[30:], 4)
    whole = Sums.of(Features(task.features, torch.cat([first.y, later.y]), 4))
    for parts in ((first, later), (later, first)):
        both = Sums.of(parts[0]).plus(Sums.of(parts[1]))
        assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(both, whole, strict=True))


@pytest.mark.parametrize("shrink", [0.0, 0.3, 1.0])
def test_each_example_left_out_is_the_head_of_the_others(shrink: float) -> None:
    task = seen(30)
    found = left_out(Sums.of(task), task, shrink, 2.0)
    for place in range(30):
        others = torch.arange(30) != place
        rest = Features(task.features[others], task.y[others], 4)
        weight, bias = discriminant(Sums.of(rest), shrink, 2.0)
        assert torch.allclose(found[place], weight @ task.features[place] + bias, rtol=1e-7, atol=1e-7)


def test_shrunk_entirely_it_is_the_nearest_class_mean() -> None:
    task, queries = seen(), torch.randn(50, 5, generator=generator(3)).double() * 4
    logits = []
    for start in (lda(1.0), prototype()):
        plan = chain(start, sgd(0.1))
        theta = {"head.weight": torch.zeros(4, 5).double(), "head.bias": torch.zeros(4).double()}
        weight, bias = plan.head(theta, dict(plan.initial(theta, 1, None)[1]), task)
        logits.append(queries @ weight.T + bias)
    assert torch.equal(logits[0].argmax(1), logits[1].argmax(1))


def test_one_example_per_class_and_padding() -> None:
    few = seen(4)
    assert all(leaf.isfinite().all() for leaf in discriminant(Sums.of(few), 0.1))
    longer = Features(torch.cat([few.features, few.features * torch.nan]), few.y.repeat(2), 4, torch.arange(8) < 4)
    assert all(torch.equal(a, b) for a, b in zip(Sums.of(few), Sums.of(longer), strict=True))
    assert StepInfo(0).arrivals is None


def test_its_derivative_reaches_features_and_numbers() -> None:
    task = seen(20)

    def loss(x: torch.Tensor, shrink: torch.Tensor) -> torch.Tensor:
        weight, bias = discriminant(Sums.of(task._replace(features=x)), shrink)
        return torch.nn.functional.cross_entropy(x @ weight.T + bias, task.y)

    assert torch.autograd.gradcheck(loss, (task.features.requires_grad_(), torch.tensor(0.3).double().requires_grad_()))
    stacked = torch.stack([task.features, task.features * 2]).detach()
    assert func.vmap(lambda x: loss(x, torch.tensor(0.3)))(stacked).shape == (2,)
