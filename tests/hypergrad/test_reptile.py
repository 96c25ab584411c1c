from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from rbml import BlindError, Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Reptile, Unrolled
from rbml.strategy import Hyper, chain, l2, momentum, prototype, sgd
from rbml.tree import Tree

Errors = Callable[[Tree, Tree], float]
Roughened = Callable[[nn.Module], nn.Module]
Pictures = Callable[..., Episodes]


def trained(module: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> tuple[Tree, Tree]:
    """Return where ``torch.optim.SGD`` takes the parameters, and the mean of its gradients."""
    theta = {name: leaf.detach().clone().requires_grad_() for name, leaf in module.named_parameters()}
    optimizer = torch.optim.SGD(list(theta.values()), lr=0.3)
    mean = {name: torch.zeros_like(leaf) for name, leaf in theta.items()}
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(functional_call(module, theta, (x,)), y).backward()
        for name, leaf in theta.items():
            assert leaf.grad is not None
            mean[name] += leaf.grad / steps
        optimizer.step()
    return {name: leaf.detach() for name, leaf in theta.items()}, mean


@pytest.mark.parametrize("net", ["mlp", "conv4"])
def test_it_is_the_way_back_and_with_a_scale_the_mean_gradient(
    net: str, pictures: Pictures, roughened: Roughened, error: Errors
) -> None:
    module = roughened(models.MLP(144, 3, (5,)) if net == "mlp" else models.Conv4(3, filters=3))
    episodes, steps = pictures(), 3
    back: Tree = {f"model.{name}": torch.zeros_like(leaf) for name, leaf in module.named_parameters()}
    mean = dict(back)
    for x, y in zip(*episodes.support[:2], strict=True):
        theta, gradients = trained(module, x, y, steps)
        for name, leaf in module.named_parameters():
            back[f"model.{name}"] = back[f"model.{name}"] + (leaf.detach() - theta[name]) / episodes.tasks
            mean[f"model.{name}"] = mean[f"model.{name}"] + gradients[name] / episodes.tasks
    learner = assemble(module, sgd(0.3), steps, hypergradient=Reptile())
    found = learner.meta_gradient(episodes)
    assert error(found.grads, back) < 1e-12
    learner.hypergradient = Reptile(scale=1 / (0.3 * steps))
    assert error(learner.meta_gradient(episodes).grads, mean) < 1e-12
    learner.hypergradient = Unrolled()
    assert torch.allclose(found.loss, learner.meta_gradient(episodes).loss, rtol=1e-13)


def test_the_outer_step_is_the_papers(pictures: Pictures, roughened: Roughened) -> None:
    """theta0 <- theta0 + epsilon (mean theta_T - theta0)."""
    learner = assemble(roughened(models.MLP(144, 3, (5,))), chain(l2(0.1), momentum(0.5), sgd(0.3)), 4)
    learner.hypergradient = Reptile()
    episodes = pictures()
    before = {name: leaf.detach().clone() for name, leaf in learner.model.named_parameters()}
    ends = [dict(learner.adapt(x, y).model.named_parameters()) for x, y in zip(*episodes.support[:2], strict=True)]
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.25)
    learner.backward(episodes)
    optimizer.step()
    for name, leaf in learner.model.named_parameters():
        mean = torch.stack([end[name].detach() for end in ends]).mean(0)
        assert torch.allclose(leaf.detach(), before[name] + 0.25 * (mean - before[name]), rtol=1e-12, atol=1e-14)


def test_rows_that_all_classes_share_are_pulled_by_all(pictures: Pictures, roughened: Roughened) -> None:
    learner = assemble(roughened(models.MLP(144, 3, (5,))), sgd(0.3), 2, shared_head=True, hypergradient=Reptile())
    episodes = pictures(tasks=1)
    end = learner.adapt(episodes.support.x[0], episodes.support.y[0], ways=3).model.get_parameter("head.weight")
    row = learner.model.get_parameter("head.weight")
    assert row.shape == (1, 5) and end.shape == (3, 5)
    truth = (row - end).sum(0, keepdim=True)
    assert torch.allclose(learner.meta_gradient(episodes).grads["model.head.weight"], truth, rtol=1e-12)


def test_no_steps_are_no_way(pictures: Pictures) -> None:
    learner = assemble(models.MLP(144, 3, (5,)).double(), sgd(0.3), 0, hypergradient=Reptile())
    assert all(float(grad.norm()) == 0 for grad in learner.meta_gradient(pictures()).grads.values())


def test_it_names_what_it_is_blind_to_and_the_way_out(pictures: Pictures) -> None:
    def said(learner: Learner) -> str:
        learner.hypergradient = Reptile()
        with pytest.raises(BlindError) as caught:
            learner.meta_gradient(pictures())
        return str(caught.value)

    net = models.MLP(144, 3, (5,)).double()
    text = said(assemble(net, chain(l2(Hyper(0.1)), sgd(Hyper(0.1)))))
    assert "phi.l2.strength" in text and "phi.sgd.lr" in text and "model." not in text and "Adjoint" in text
    text = said(assemble(net, sgd(0.1), adapt="head.*"))
    assert "model.body.1.weight" in text and "model.head" not in text
    text = said(assemble(net, chain(prototype(), sgd(0.1)), adapt="head.*"))
    assert "model.body.1.weight" in text, "features that make the head are not adapted"


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_means_nothing_is_refused(scale: float) -> None:
    with pytest.raises(UsageError, match="scale must be a number above 0"):
        Reptile(scale)
