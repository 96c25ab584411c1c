"""Wrong use of a learner: each kind is one error that says what was expected, what came, and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rbml import Batch, Episodes, Learner, algorithms, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.strategy import l2, sgd

Pictures = Callable[..., Episodes]


def conv(outputs: int = 3) -> models.Conv4:
    return models.Conv4(outputs, filters=3).double()


def task(episodes: Episodes) -> tuple[Batch, Batch]:
    support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
    return support, query


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"adapt": "haed.*"}, r"adapt='haed.\*' matches no parameter of the model; it has body.1.weight, .*head.bias"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"chunk": 0}, "chunk is how many tasks run at once"),
        ({"statistics": "inductiv"}, "there is no choice of batch-norm statistics named 'inductiv': did you mean"),
        ({"shared_head": True, "head": "top.*"}, r"shared_head needs a head, and head='top.\*' matches no parameter"),
        ({"strategy": l2(0.1)}, "the strategy has no rule that takes steps: add one"),
        ({"loss": nn.PReLU()}, "the loss has parameters"),
    ],
)
def test_a_learner_that_cannot_be(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        assemble(models.MLP(4, 3, (5,)), **options)  # type: ignore[arg-type]


def test_a_model_without_parameters() -> None:
    with pytest.raises(UsageError, match="matches no parameter of the model; it has none"):
        Learner(nn.Flatten())


def test_statistics_that_the_model_does_not_have() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False))
    with pytest.raises(UsageError, match="1 of the model keeps no running statistics"):
        assemble(module, statistics="running")


BAD: dict[str, tuple[Callable[[Batch], Batch], str]] = {
    "too many classes": (
        lambda b: Batch(b.x, b.y + 1),
        "labels must be 0 .. 2 for a head of 3 classes, but go from 1 to 3",
    ),
    "negative": (lambda b: Batch(b.x, b.y - 1), "but go from -1 to 1"),
    "int32": (lambda b: Batch(b.x, b.y.int()), "the labels are torch.int32: classes are torch.int64"),
    "bool": (lambda b: Batch(b.x, b.y > 0), "the labels are torch.bool"),
    "float32": (lambda b: Batch(b.x.float(), b.y), "the examples are torch.float32, the model is torch.float64"),
    "bytes": (lambda b: Batch(b.x.byte(), b.y), r"the model fails on examples \(6, 1, 12, 12\) of torch.uint8: "),
    "counts": (lambda b: Batch(b.x, b.y[..., :-1]), r"x and y must both begin with .*n, ...\), not .* and "),
    "channels": (
        lambda b: Batch(b.x.expand(*b.x.shape[:-3], 3, 12, 12), b.y),
        r"the model fails on examples \(6, 3, 12",
    ),
    "size": (lambda b: Batch(b.x.flatten(-3), b.y), r"the model fails on examples \(6, 144\)"),
    "a target a pixel": (
        lambda b: Batch(b.x, b.x.long() * 0),
        r"the loss fails on a prediction \(6, 3\) and targets \(6, 1",
    ),
    "empty": (lambda b: Batch(b.x[..., :0, :, :, :], b.y[..., :0]), "the batch is empty: it has shape"),
    "a number": (lambda b: Batch(torch.tensor(1.0), torch.tensor(1)), "x and y must both begin with"),
}


@pytest.mark.parametrize("name", BAD)
def test_examples_that_do_not_fit(name: str, pictures: Pictures) -> None:
    change, text = BAD[name]
    learner = algorithms.maml(conv(), steps=1)
    support, query = pictures()
    for episodes in (Episodes(change(support), query), Episodes(change(support), change(query))):
        for use in (learner.meta_gradient, learner.backward, learner.evaluate):
            with pytest.raises(UsageError, match=text):
                use(episodes)
    alone = change(Batch(support.x[0], support.y[0]))
    if name != "too many classes":  # adapt starts the head for as many as there are
        with pytest.raises(UsageError, match=text):
            learner.adapt(*alone)
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_support_and_query_of_other_numbers_of_tasks(pictures: Pictures) -> None:
    episodes = Episodes(pictures(tasks=2).support, pictures(tasks=3).query)
    for use in (algorithms.maml(conv()).meta_gradient, algorithms.maml(conv()).evaluate):
        with pytest.raises(UsageError, match="support has 2 tasks, query 3"):
            use(episodes)


def test_bad_queries_are_found_too(pictures: Pictures) -> None:
    support, query = pictures()
    with pytest.raises(UsageError, match="but go from 5 to 7"):
        algorithms.maml(conv()).evaluate(Episodes(support, Batch(query.x, query.y + 5)))


def test_a_model_without_a_head_cannot_start_for_another_number(pictures: Pictures) -> None:
    learner = assemble(conv(), sgd(0.1), head="top.*")
    support, _ = task(pictures(ways=5))
    assert learner.ways is None and learner.adapt(*task(pictures())[0]).model.head.bias.shape == (3,)
    with pytest.raises(UsageError, match=r"labels must be 0 .. 2 for a head of 3 classes"):
        learner.adapt(*support)
    with pytest.raises(UsageError, match="the model has no head that could start for 5 classes"):
        learner.adapt(*support, ways=5)


def test_unknown_statistics_are_refused_wherever_they_are_given(pictures: Pictures) -> None:
    learner = algorithms.maml(conv())
    for use in (
        lambda: learner.evaluate(pictures(), "induct"),
        lambda: learner.adapt(*task(pictures())[0], statistics="induct"),
    ):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="there is no choice of batch-norm statistics named 'induct'"):
            use()


@pytest.mark.parametrize(
    ("forward", "text"),
    [
        (lambda self, x: (self.head(x), x), r"one tensor with one row per example, not tuple for \(6, 4\)"),
        (lambda self, x: self.head(x).sum(0, keepdim=True), r"with one row per example, not \(1, 3\) for \(6, 4\)"),
        (lambda self, x, more: x, r"the model fails on examples \(6, 4\) .*more"),
    ],
)
def test_a_model_that_returns_something_else(forward: Callable[..., object], text: str, pictures: Pictures) -> None:
    module = type("Odd", (nn.Module,), {"forward": forward})()
    module.head = nn.Linear(4, 3)
    learner = algorithms.maml(module.double())
    for use in (
        lambda: learner.meta_gradient(pictures(shape=(4,))),
        lambda: learner.adapt(*task(pictures(shape=(4,)))[0]),
    ):
        with pytest.raises(UsageError, match=text):
            use()


def test_a_loss_that_is_not_a_scalar(pictures: Pictures) -> None:
    learner = assemble(conv(), sgd(0.1), loss=nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(
        UsageError, match=r"the loss must be a scalar, not \(6,\) for a prediction \(6, 3\) and targets"
    ):
        learner.meta_gradient(pictures())


def test_an_error_that_neither_model_nor_loss_explains_goes_on_as_it_is(pictures: Pictures) -> None:
    class Broken:
        def __call__(self, inner: object, m: object) -> object:
            raise ZeroDivisionError("in an engine")

    learner = assemble(conv(), sgd(0.1), hypergradient=Broken())  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError, match="in an engine"):
        learner.meta_gradient(pictures())
