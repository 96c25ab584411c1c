"""What every hypergradient engine must pass; test_exact_engines.py has what is asked of exact ones alone."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.engines import APPROXIMATE, ELSEWHERE, EXACT, every, exact
from tests.contracts.problems import Errors, Make, Pictures, Problem, Task, episodes_for, full
from torch import Tensor, func, nn

from rbml import Batch, Episode, hypergrad, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Hypergradient
from rbml.inner import roll
from rbml.operators.alone import alone
from rbml.strategy import Hyper, sgd
from rbml.tree import Tree


def test_every_member_is_tested_here() -> None:
    for name in hypergrad.ALL:
        assert name in EXACT or name in APPROXIMATE or f'"{name}"' in ELSEWHERE.read_text(), name


@pytest.mark.parametrize("name", sorted(hypergrad.ALL))
def test_every_engine_says_what_it_costs_and_what_it_is_blind_to(name: str) -> None:
    text = str(hypergrad.ALL[name].__doc__)
    first, *rest = text.splitlines()
    assert first.strip() and rest, "one line, then the rest"
    for word in ("Memory", "Time", "blind", "arXiv"):
        assert word in text, f"{name} does not say: {word}"
    assert "Exact." in text or "Approximate" in text


@pytest.mark.parametrize("engine", every)
@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_the_result_has_the_form_that_the_protocol_says(net: str, engine: Hypergradient, task: Task) -> None:
    inner, m = task(Problem(net, lambda: full(terms=False), 3))
    before = {name: leaf.clone() for name, leaf in m.items()}
    result = engine(inner, m)
    loss, aux = inner.outer(roll(inner, inner.start(m), m), m)
    assert torch.allclose(result.loss, loss, rtol=1e-13) and result.loss.dim() == 0
    assert torch.allclose(result.aux["prediction"], aux["prediction"], rtol=1e-10)
    assert list(result.grads) == list(m)
    for name, grad in result.grads.items():
        assert grad.shape == m[name].shape and grad.dtype == m[name].dtype and not grad.requires_grad
        assert torch.isfinite(grad).all()
        assert torch.equal(before[name], m[name]), f"{name} was changed in place"


@pytest.mark.parametrize("engine", every)
def test_no_steps_leave_the_plain_gradient(engine: Hypergradient, task: Task) -> None:
    inner, m = task(Problem("conv4", lambda: full(terms=False), 0))
    result = engine(inner, m)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in m.items()}
    loss, _ = inner.outer(inner.start(leaves), leaves)
    plain = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    for name, truth in zip(leaves, plain, strict=True):
        assert torch.allclose(result.grads[name], truth, rtol=1e-12, atol=1e-16), name
        assert float(truth.norm()) == 0 if name.startswith("phi.") else float(truth.norm()) > 0


@pytest.mark.parametrize("engine", every)
def test_a_part_of_the_meta_parameters_gets_the_same_derivative(engine: Hypergradient, task: Task) -> None:
    inner, m = task(Problem("mlp", lambda: full(terms=False), 3))
    whole = engine(inner, m).grads
    for prefix in ("model.", "phi.", "phi.sgd", "model.head"):
        part = engine(inner, {name: leaf for name, leaf in m.items() if name.startswith(prefix)}).grads
        assert part and all(torch.allclose(grad, whole[name], rtol=1e-12, atol=0) for name, grad in part.items())


@pytest.mark.parametrize("engine", every)
@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_vectorised_over_tasks_it_equals_the_loop(
    net: str, engine: Hypergradient, make: Make, pictures: Pictures, error: Errors
) -> None:
    problem = Problem(net, lambda: full(terms=False), 3)
    learner, episodes = make(problem), episodes_for(problem, pictures)
    m = {name: leaf.detach() for name, leaf in learner.named_parameters()}

    def one(sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> tuple[Tensor, Tree]:
        result = engine(learner.inner(Episode(Batch(sx, sy), Batch(qx, qy))), m)
        return result.loss, result.grads

    tensors = (*episodes.support[:2], *episodes.query[:2])
    losses, grads = func.vmap(one)(*tensors)
    for index in range(episodes.tasks):
        loss, truth = one(*(tensor[index] for tensor in tensors))
        assert torch.allclose(losses[index], loss, rtol=1e-12)
        rounding = 1e-9 if "difference" in repr(engine) else 1e-11
        assert error({name: grad[index] for name, grad in grads.items()}, truth) < rounding
        with alone():  # plain graphs, as for one task and for vectorise=False
            loss, plain = one(*(tensor[index] for tensor in tensors))
        assert torch.allclose(losses[index], loss, rtol=1e-12)
        assert error(plain, truth) < rounding


@pytest.mark.parametrize("engine", every)
def test_the_caller_may_be_under_no_grad(engine: Hypergradient, task: Task, error: Errors) -> None:
    inner, m = task(Problem("mlp", lambda: full(terms=False), 2))
    truth = engine(inner, m).grads
    with torch.no_grad():
        assert error(engine(inner, m).grads, truth) == 0.0


@pytest.mark.parametrize("engine", exact)
def test_a_parameter_that_the_model_does_not_use_has_a_zero_gradient(
    engine: Hypergradient, pictures: Pictures, error: Errors
) -> None:
    class Spare(models.MLP):
        def __init__(self) -> None:
            super().__init__(4, 3, (5,), nn.Tanh)
            self.spare = nn.Parameter(torch.ones(2))

    learner = assemble(Spare().double(), sgd(Hyper(0.1, per="tensor")), 2, hypergradient=engine)
    grads = learner.meta_gradient(pictures(shape=(4,))).grads
    assert set(grads) == {name for name, _ in learner.named_parameters()}
    assert float(grads["model.spare"].norm()) == 0 == float(grads["phi.sgd.lr/spare"])
    assert float(grads["model.head.weight"].norm()) > 0
