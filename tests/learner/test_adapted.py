"""What a learner learns on one task: the adapted model, and its evaluation."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rbml import Batch, Episodes, algorithms, models
from rbml.algorithms.options import assemble
from rbml.strategy import Hyper, chain, momentum, sgd
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Curves = Callable[..., Episodes]
Roughened = Callable[[nn.Module], nn.Module]
Errors = Callable[[Tree, Tree], float]


def conv(outputs: int = 3) -> models.Conv4:
    return models.Conv4(outputs, filters=3).double()


def task(episodes: Episodes) -> tuple[Batch, Batch]:
    support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
    return support, query


# ------------------------------------------------------------------------------------------------ one task: adapt


def test_adapt_is_plain_descent_on_the_support_examples(pictures: Pictures) -> None:
    module = conv()
    support, query = task(pictures())
    adapted = algorithms.maml(module, lr=0.3, steps=4).adapt(*support, statistics="transductive")
    plain = copy.deepcopy(module)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(plain(support.x), support.y).backward()
        optimizer.step()
    for name, leaf in adapted.model.named_parameters():
        assert torch.allclose(leaf, plain.get_parameter(name), rtol=1e-11, atol=1e-13), name
    assert torch.allclose(adapted(query.x), plain(query.x), rtol=1e-10)


def test_a_prediction_does_not_depend_on_the_others_in_the_call(pictures: Pictures) -> None:
    learner = algorithms.maml(conv(), steps=2)
    support, query = task(pictures(queries=4))
    adapted = learner.adapt(*support)
    together = adapted(query.x)
    assert torch.allclose(together, torch.cat([adapted(one[None]) for one in query.x]), rtol=1e-12)
    assert torch.allclose(together.flip(0), adapted(query.x.flip(0)), rtol=1e-12)
    among_others = learner.adapt(*support, statistics="transductive")
    assert among_others.transductive and not adapted.transductive
    assert not torch.allclose(among_others(query.x)[:4], among_others(query.x[:4]), rtol=1e-3)


def test_inductive_queries_are_normalised_by_the_adapted_support_batch(pictures: Pictures) -> None:
    """With the support set itself as queries, both kinds of statistics are the same numbers."""
    support, _ = task(pictures())
    learner = algorithms.maml(conv(), steps=2)
    inductive, transductive = (learner.adapt(*support, statistics=which)(support.x) for which in
                               ("inductive", "transductive"))  # fmt: skip
    assert torch.allclose(inductive, transductive, rtol=1e-9)


def test_an_adapted_model_is_a_plain_module_of_its_own(pictures: Pictures, tmp_path: object) -> None:
    support, query = task(pictures())
    learner = algorithms.maml(conv(), steps=2)
    adapted = learner.adapt(*support)
    expected = adapted(query.x).detach()
    other = learner.adapt(support.x * 2, support.y)
    other.load_state_dict(adapted.state_dict())
    assert torch.allclose(other(query.x), expected, rtol=1e-12), "its state dict holds the statistics too"
    assert torch.allclose(copy.deepcopy(adapted).train()(query.x), expected, rtol=1e-12), "whatever its mode"
    adapted(query.x).sum().backward()
    assert all(parameter.grad is not None for parameter in adapted.parameters()), "it can be trained on"
    assert all(parameter.grad is None for parameter in learner.parameters())


@pytest.mark.parametrize("adapt", ["*", "head.*", "blocks.*"])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("ways", [2, 3, 5])
def test_a_task_may_have_another_number_of_classes(ways: int, shared: bool, adapt: str, pictures: Pictures) -> None:
    """Fewer classes take the first rows of the head, with their rates; more take the rows again."""
    rates = sgd(Hyper((0.1, 0.3), per="element"))
    learner = assemble(conv(3), rates, steps=2, shared_head=shared, adapt=adapt)
    support, query = task(pictures(ways=ways))
    adapted = learner.adapt(*support, ways=ways)
    assert adapted(query.x).shape == (query.x.shape[0], ways)
    assert adapted.model.head.weight.shape == (ways, 3)
    evaluation = learner.evaluate(pictures(ways=ways), ways=ways)
    transductive = learner.adapt(*support, statistics="transductive", ways=ways)
    assert torch.allclose(transductive(query.x), evaluation.prediction[0], rtol=1e-10)
    if ways == 5 or shared:  # classes that start from one row: it is the examples that tell them apart
        first, second = (0, 1) if shared else (0, 3)
        order = torch.arange(ways)
        order[first], order[second] = second, first
        swapped = learner.adapt(support.x, order[support.y], ways=ways)
        assert torch.allclose(swapped(query.x)[:, order], adapted(query.x), rtol=1e-9)


def test_more_classes_than_the_head_has_are_noticed(pictures: Pictures) -> None:
    learner = algorithms.maml(conv(3))
    assert learner.adapt(*task(pictures(ways=6))[0])(torch.zeros(1, 1, 12, 12).double()).shape == (1, 6)
    assert learner.adapt(*task(pictures(ways=2))[0])(torch.zeros(1, 1, 12, 12).double()).shape == (1, 3)


def test_classes_may_have_unequal_counts_and_any_order(pictures: Pictures) -> None:
    support, query = task(pictures(ways=3, shots=4))
    keep = torch.tensor([0, 3, 6, 9, 1, 2, 5])  # 4 of class 0, 1 of class 1, 2 of class 2
    learner = algorithms.maml(conv(), steps=2)
    adapted = learner.adapt(support.x[keep], support.y[keep])
    mixed = keep[torch.tensor([6, 2, 4, 0, 1, 5, 3])]
    assert torch.allclose(learner.adapt(support.x[mixed], support.y[mixed])(query.x), adapted(query.x), rtol=1e-9)


# ----------------------------------------------------------------------------------------------------- evaluate


@pytest.mark.parametrize("statistics", ["transductive", "inductive"])
def test_evaluate_is_what_adapt_does_after_every_number_of_steps(statistics: str, pictures: Pictures) -> None:
    rules = chain(momentum(0.5), sgd(Hyper(0.2, per_step=True)))
    learner = assemble(conv(), rules, steps=3, chunk=2)
    episodes = pictures()
    found = learner.evaluate(episodes, statistics)  # type: ignore[arg-type]
    assert found.loss.shape == (3, 4) and found.accuracy is not None and found.accuracy.shape == (3, 4)
    for index in range(episodes.tasks):
        sx, sy, qx, qy = (leaf[index] for batch in episodes for leaf in batch[:2])
        for steps in range(4):
            learner.steps = steps
            prediction = learner.adapt(sx, sy, statistics=statistics)(qx)  # type: ignore[arg-type]
            assert torch.allclose(found.loss[index, steps], F.cross_entropy(prediction, qy), rtol=1e-10)
            assert float(found.accuracy[index, steps]) == pytest.approx(
                float((prediction.argmax(1) == qy).double().mean())
            )
        assert torch.allclose(found.prediction[index], prediction, rtol=1e-9)
        learner.steps = 3


def test_step_0_is_the_unadapted_model(pictures: Pictures) -> None:
    module, episodes = conv(), pictures()
    found = algorithms.maml(module, steps=2).evaluate(episodes)
    for index in range(episodes.tasks):
        loss = F.cross_entropy(module(episodes.query.x[index]), episodes.query.y[index])
        assert torch.allclose(found.loss[index, 0], loss, rtol=1e-11)


def test_evaluate_agrees_with_the_loss_that_is_learned_from(pictures: Pictures) -> None:
    learner = algorithms.maml(conv(), steps=3)
    result, found = learner.meta_gradient(pictures()), learner.evaluate(pictures())
    assert torch.allclose(found.loss[:, -1], result.aux["loss"], rtol=1e-12)
    assert torch.allclose(found.prediction, result.aux["prediction"], rtol=1e-10)


def test_steps_and_the_end_alone(pictures: Pictures) -> None:
    learner = assemble(conv(), sgd(Hyper(0.2, per_step=True)), steps=2)
    long, end = learner.evaluate(pictures(), steps=5), learner.evaluate(pictures(), steps=5, each_step=False)
    assert long.loss.shape == (3, 6) and end.loss.shape == (3, 1)
    assert torch.equal(long.loss[:, -1:], end.loss) and torch.equal(long.prediction, end.prediction)
    assert torch.equal(long.loss[:, :3], learner.evaluate(pictures()).loss)
    assert learner.evaluate(pictures(), steps=0).loss.shape == (3, 1)
