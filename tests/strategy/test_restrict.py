"""Rules for some of the parameters, against ``torch.optim`` with groups of parameters."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rbml import Episodes, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled
from rbml.strategy import Hyper, Strategy, adam, chain, momentum, only, sgd, weight_decay
from rbml.tree import Tree


def net() -> models.MLP:
    return models.MLP(4, 3, (5,), nn.Tanh).double()


GROUPS = {
    "two rates": (
        chain(only("head.*", sgd(0.3, name="fast")), only("!head.*", sgd(0.05))),
        lambda head, body: torch.optim.SGD([{"params": head, "lr": 0.3}, {"params": body, "lr": 0.05}]),
    ),
    "a state each": (
        chain(
            only("head.*", momentum(0.9, name="heavy")),
            only("!head.*", momentum(0.5)),
            only("!head.*", weight_decay(0.1)),
            sgd(0.1),
        ),
        lambda head, body: torch.optim.SGD(
            [{"params": head, "momentum": 0.9}, {"params": body, "momentum": 0.5}], lr=0.1
        ),
    ),
    "adam for the head alone": (
        chain(only("head.*", adam()), only("head.*", sgd(0.01, name="fast")), only("!head.*", sgd(0.1))),
        lambda head, body: Both(torch.optim.Adam(head, lr=0.01), torch.optim.SGD(body, lr=0.1)),
    ),
}


class Both:
    """Two optimizers as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers

    def zero_grad(self) -> None:
        for one in self.optimizers:
            one.zero_grad()

    def step(self) -> None:
        for one in self.optimizers:
            one.step()


@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_parameters_of_torch_optim(name: str, pictures: Callable[..., Episodes]) -> None:
    strategy, optimizer_of = GROUPS[name]
    model, (x, y) = net(), (leaf[0] for leaf in pictures(shape=(4,)).support[:2])
    adapted = assemble(model, strategy, steps=5).adapt(x, y)
    body = [leaf for key, leaf in model.named_parameters() if not key.startswith("head")]
    optimizer = optimizer_of(list(model.head.parameters()), body)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if name == "a state each":  # decay that comes after the momentum, as in AdamW
            with torch.no_grad():
                decays = {key: 0.01 * leaf for key, leaf in model.named_parameters() if not key.startswith("head")}
            optimizer.step()
            with torch.no_grad():
                for key, decay in decays.items():
                    model.get_parameter(key).sub_(decay)
        else:
            optimizer.step()
    for key, leaf in adapted.model.named_parameters():
        assert torch.allclose(leaf, model.get_parameter(key), rtol=1e-10, atol=1e-13), key


def learned() -> Strategy:
    return chain(
        only("head.*", momentum(Hyper(0.7, per="layer"))),
        only("head.*", sgd(Hyper(0.3, per_step=True), name="fast")),
        only("!head.*", sgd(Hyper(0.1, per="element", bounds=(0, None)))),
    )


def test_learned_numbers_are_those_of_the_parameters_that_match() -> None:
    learner = assemble(net(), learned(), steps=3)
    assert {name: tuple(leaf.shape) for name, leaf in learner.phi.named_parameters()} == {
        "momentum.decay/head.*": (),
        "fast.lr": (3,),
        "sgd.lr/body.1.weight": (5, 4),
        "sgd.lr/body.1.bias": (5,),
    }


def test_the_meta_gradient_against_central_differences(
    pictures: Callable[..., Episodes], error: Callable[[Tree, Tree], float]
) -> None:
    learner, tasks = assemble(net(), learned(), steps=3), pictures(shape=(4,))
    found = {engine: learner.meta_gradient(tasks, phase=learner.phase(1)._replace(hypergradient=engine)).grads
             for engine in (Adjoint(keep=1), Unrolled())}  # fmt: skip
    assert error(*found.values()) < 1e-10
    grads = found[Adjoint(keep=1)]
    for name, parameter in learner.named_parameters():
        toward = torch.randn(parameter.shape, dtype=parameter.dtype)
        losses = []
        for way in (1e-5, -1e-5):
            parameter.data += way * toward
            losses.append(float(learner.evaluate(tasks).loss[:, -1].mean()))
            parameter.data -= way * toward
        expected = (losses[0] - losses[1]) / 2e-5
        assert float((grads[name] * toward).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-9), name


def test_it_is_pickled(pictures: Callable[..., Episodes], error: Callable[[Tree, Tree], float]) -> None:
    learner, tasks = assemble(net(), learned(), steps=2), pictures(shape=(4,))
    again = pickle.loads(pickle.dumps(learner))
    assert error(again.meta_gradient(tasks).grads, learner.meta_gradient(tasks).grads) == 0


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"only\('tail\.\*', \.\.\.\) matches no adapted parameter; there are body"):
        assemble(net(), chain(only("tail.*", sgd(0.1))))
