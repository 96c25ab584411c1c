"""The presets: each is one choice of strategy, of what is adapted, and of hypergradient, and none has a loop."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rbml import Episodes, Learner, algorithms, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, FirstOrder, Unrolled
from rbml.strategy import Hyper

NAMES = sorted(algorithms.ALL)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_is_a_learner_that_takes_every_option_of_a_learner(name: str) -> None:
    options = {"loss": F.mse_loss, "statistics": "inductive", "chunk": 7, "hypergradient": Unrolled(), "steps": 3}
    assert set(options) <= set(inspect.signature(assemble).parameters)
    learner = algorithms.ALL[name](models.MLP(4, 3, context=2 * (name == "cavia")), **options)
    assert isinstance(learner, Learner)
    for option, value in options.items():
        kept = learner.execution.chunk if option == "chunk" else getattr(learner, option)
        assert kept == value, f"{name} loses {option}"
    text = str(inspect.getdoc(algorithms.ALL[name]))
    assert "arXiv" in text and text.splitlines()[0].endswith(".")


def test_no_algorithm_owns_a_loop() -> None:
    for path in Path(str(algorithms.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.For | ast.While), f"{path.name}:{node.lineno} has a loop"


def test_what_each_of_them_chooses() -> None:
    model = models.MLP(4, 3, (5,))
    plain = algorithms.maml(model)
    assert isinstance(plain.hypergradient, Adjoint) and (plain.steps, plain.adapted) == (
        1,
        [name for name, _ in model.named_parameters()],
    )
    assert dict(plain.phi.named_parameters()) == {} and float(plain.phi.get_buffer("sgd.lr")) == pytest.approx(0.4)
    assert isinstance(algorithms.fomaml(model).hypergradient, FirstOrder)
    head = algorithms.anil(model)
    assert head.adapted == ["head.weight", "head.bias"] and head.steps == 5
    rates = algorithms.meta_sgd(model, generator=torch.Generator().manual_seed(0))
    assert {name: leaf.shape for name, leaf in rates.phi.named_parameters()} == {
        f"sgd.lr/{name}": leaf.shape for name, leaf in model.named_parameters()
    }
    drawn = torch.cat([leaf.detach().flatten() for leaf in rates.phi.parameters()])
    assert 0.005 <= float(drawn.min()) < 0.02 and 0.09 < float(drawn.max()) <= 0.1


def test_a_learned_rate_is_one_option_away() -> None:
    learner = algorithms.maml(models.MLP(4, 3, (5,)), lr=Hyper(0.1, per="layer", per_step=True), steps=3)
    assert {name: tuple(leaf.shape) for name, leaf in learner.phi.named_parameters()} == {
        "sgd.lr/body.1.*": (3,),
        "sgd.lr/head.*": (3,),
    }


def test_the_nearest_neighbour(pictures: Callable[..., Episodes]) -> None:
    episodes = pictures(tasks=4, ways=3, shots=2, queries=5)
    found = algorithms.nearest_neighbour(episodes)
    for index in range(4):
        (sx, sy), (qx, qy) = ((batch.x[index], batch.y[index]) for batch in episodes)
        guesses = [int(sy[int(((sx - one) ** 2).sum((1, 2, 3)).argmin())]) for one in qx]
        assert float(found[index]) == pytest.approx(
            sum(g == int(y) for g, y in zip(guesses, qy, strict=True)) / len(qy)
        )


def test_scratch_is_torch_sgd_from_the_random_start(pictures: Callable[..., Episodes]) -> None:
    model = models.MLP(144, 3, (5,)).double()
    learner = algorithms.scratch(model, lr=0.02, steps=6)
    x, y = (leaf[0] for leaf in pictures().support[:2])
    adapted = learner.adapt(x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for _ in range(6):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    for name, leaf in adapted.model.named_parameters():
        assert torch.allclose(leaf, model.get_parameter(name), rtol=1e-11, atol=1e-13)
