from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from rbml import BlindError, Episodes, algorithms, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import FirstOrder, Unrolled
from rbml.inner import Inner
from rbml.strategy import Hyper, chain, l2, momentum, sgd, weight_decay
from rbml.tree import Tree, detach

Errors = Callable[[Tree, Tree], float]
Roughened = Callable[[nn.Module], nn.Module]
Pictures = Callable[..., Episodes]


@pytest.mark.parametrize("adapt", ["*", "head.*", "blocks.*"])
def test_it_is_the_exact_engine_on_a_problem_whose_inner_gradients_are_cut(
    adapt: str, pictures: Pictures, roughened: Roughened, error: Errors
) -> None:
    rules = chain(
        l2(0.1),
        weight_decay(Hyper(0.1, per="layer")),
        momentum(Hyper(0.5, bounds=(0, 1)), nesterov=True),
        sgd(Hyper(0.2, per="element", per_step=True)),
    )
    learner = assemble(roughened(models.Conv4(3, filters=3)), rules, 4, adapt=adapt)
    learner.hypergradient = FirstOrder()
    found = learner.meta_gradient(pictures()).grads

    class Cut:
        def __call__(self, inner: Inner, m: Tree) -> object:
            return Unrolled()(replace(inner, update=lambda g, c, meta, t: inner.update(detach(g), c, meta, t)), m)

    learner.hypergradient = Cut()  # type: ignore[assignment]
    assert error(found, learner.meta_gradient(pictures()).grads) < 1e-12
    learner.hypergradient = Unrolled()
    assert error(found, learner.meta_gradient(pictures()).grads) > 1e-2, "it is an approximation"


@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_fomaml_is_the_query_gradient_at_the_adapted_parameters(
    net: str, pictures: Pictures, roughened: Roughened, error: Errors
) -> None:
    module = roughened(models.MLP(144, 3, (5,)) if net == "mlp" else models.Conv4(3, filters=3))
    episodes = pictures()
    truth: Tree = {}
    for sx, sy, qx, qy in zip(*episodes.support[:2], *episodes.query[:2], strict=True):
        theta = {name: leaf.detach().requires_grad_() for name, leaf in module.named_parameters()}
        for _ in range(3):
            loss = F.cross_entropy(functional_call(module, theta, (sx,)), sy)
            grads = torch.autograd.grad(loss, list(theta.values()))
            theta = {n: (p - 0.3 * g).detach().requires_grad_() for (n, p), g in zip(theta.items(), grads, strict=True)}
        loss = F.cross_entropy(functional_call(module, theta, (qx,)), qy)
        for name, grad in zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True):
            truth[f"model.{name}"] = truth.get(f"model.{name}", torch.zeros(())) + grad / episodes.tasks
    learner = algorithms.fomaml(module, lr=0.3, steps=3)
    assert error(learner.meta_gradient(episodes).grads, truth) < 1e-12


def test_it_names_what_it_is_blind_to_and_the_way_out(pictures: Pictures) -> None:
    rules = chain(l2(Hyper(0.1, per="layer")), sgd(Hyper(0.1)))
    learner = assemble(models.MLP(144, 3, (5,)).double(), rules, hypergradient=FirstOrder())
    with pytest.raises(BlindError) as caught:
        learner.meta_gradient(pictures())
    text = str(caught.value)
    assert "phi.l2.strength/body.1.*" in text and "phi.l2.strength/head.*" in text and "phi.sgd.lr" not in text
    assert "Adjoint or Unrolled" in text and "learn=False" in text
    for name, parameter in learner.phi.named_parameters():
        parameter.requires_grad_(not name.startswith("l2."))
    assert "phi.sgd.lr" in learner.meta_gradient(pictures()).grads


def test_a_fixed_strength_is_no_reason_to_refuse(pictures: Pictures) -> None:
    rules = chain(l2(0.1), sgd(Hyper(0.1)))
    learner = assemble(models.MLP(144, 3, (5,)).double(), rules, hypergradient=FirstOrder())
    assert "phi.sgd.lr" in learner.meta_gradient(pictures()).grads
