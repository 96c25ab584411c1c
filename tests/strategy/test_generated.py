from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rbml import Batch, Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.strategy import Hyper, StepInfo, alfa, attenuate, chain, momentum, sgd, weight_decay
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Proved = Callable[..., Learner]


def task(episodes: Episodes) -> tuple[Batch, Batch]:
    support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
    return support, query


def roughen(learner: Learner) -> Learner:
    with torch.no_grad():
        for parameter in learner.phi.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return learner


def network(learner: Learner, part: str) -> nn.Module:
    """Return a part's network as a module of PyTorch."""
    leaves = {
        name.rpartition("net/")[2]: leaf for name, leaf in learner.phi.named_parameters() if f"{part}.net" in name
    }
    outputs, inputs = leaves["0/weight"].shape
    net = nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, len(leaves["1/bias"]))).double()
    net.load_state_dict({f"{2 * int(name[0])}.{name[2:]}": leaf for name, leaf in leaves.items()})
    return net


def gradient(learner: Learner, theta: Tree, support: Batch) -> Tree:
    theta = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
    prediction = torch.func.functional_call(learner.model, theta, (support.x,))
    grads = torch.autograd.grad(nn.functional.cross_entropy(prediction, support.y), list(theta.values()))
    return dict(zip(theta, grads, strict=True))


def test_alfa_written_out(pictures: Pictures) -> None:
    """As in the paper: theta <- beta theta - alpha grad, both made from layer-wise means at every step."""
    plan = alfa(Hyper(0.5, per="tensor", per_step=True), Hyper(0.1, per="tensor", per_step=True))
    learner = roughen(assemble(models.MLP(4, 3, (5,)).double(), plan, 3))
    support, _ = task(pictures(shape=(4,)))
    net, phi = network(learner, "alfa"), dict(learner.phi.named_parameters())
    theta = {name: leaf.detach() for name, leaf in learner.model.named_parameters()}
    names = sorted(theta)
    for t in range(3):
        grads = gradient(learner, theta, support)
        a, b = net(torch.stack([one[name].mean() for one in (theta, grads) for name in names])).split(len(names))
        alpha = {name: phi[f"alfa.lr/{name}"][t] * a[i] for i, name in enumerate(names)}
        beta = {name: 1 - phi[f"alfa.decay/{name}"][t] * b[i] for i, name in enumerate(names)}
        theta = {name: beta[name] * leaf - alpha[name] * grads[name] for name, leaf in theta.items()}
    adapted = learner.adapt(*support).model
    assert all(torch.allclose(adapted.get_parameter(name), leaf, rtol=1e-11) for name, leaf in theta.items())


def test_alfa_starts_with_its_rates_as_they_are(pictures: Pictures) -> None:
    module, episodes = models.MLP(4, 3, (5,)).double(), pictures(shape=(4,))
    plain = assemble(module, chain(sgd(0.4), weight_decay(0.02)), 3)
    found = assemble(module, alfa(0.4, 0.02), 3)
    assert torch.allclose(found.evaluate(episodes).loss, plain.evaluate(episodes).loss, rtol=1e-13)


def test_attenuation_and_then_as_many_steps(pictures: Pictures) -> None:
    learner = roughen(assemble(models.MLP(4, 3, (5,)).double(), chain(sgd(0.4), attenuate()), 3))
    support, _ = task(pictures(shape=(4,)))
    theta = {name: leaf.detach() for name, leaf in learner.model.named_parameters()}
    grads = gradient(learner, theta, support)
    names = sorted(theta)
    gamma = network(learner, "attenuate")(torch.stack([0.4 * grads[name].mean() for name in names])).sigmoid().detach()
    theta = {name: gamma[names.index(name)] * leaf for name, leaf in theta.items()}
    assert float(gamma.min()) > 0 and len(set(gamma.tolist())) == len(names)
    for _ in range(2):
        grads = gradient(learner, theta, support)
        theta = {name: leaf - 0.4 * grads[name] for name, leaf in theta.items()}
    adapted = learner.adapt(*support).model
    assert all(torch.allclose(adapted.get_parameter(name), leaf, rtol=1e-11) for name, leaf in theta.items())


def test_attenuation_starts_where_it_is_told_whatever_the_gradient() -> None:
    plan = chain(momentum(0.5), sgd(0.1), attenuate(keep=0.75))
    theta = {"a": torch.randn(3, dtype=torch.float64), "b": torch.randn(2, dtype=torch.float64)}
    grads = {name: torch.randn_like(leaf) for name, leaf in theta.items()}
    learned, fixed = plan.initial(theta, 1, None)
    after, state = plan.update(grads, plan.init(theta), theta, learned | fixed, StepInfo(0))
    assert all(torch.allclose(after[name], 0.75 * leaf, rtol=1e-14) for name, leaf in theta.items())
    assert all(torch.equal(state[f"momentum/{name}"], grad) for name, grad in grads.items()), "rules before it saw it"
    later, _ = plan.update(grads, state, after, learned | fixed, StepInfo(1))
    assert all(torch.allclose(later[name], leaf - 0.15 * grads[name], rtol=1e-14) for name, leaf in after.items())


@pytest.mark.parametrize("keep", [0.0, 1.0, 1.5])
def test_a_factor_that_keeps_all_or_nothing_is_refused(keep: float) -> None:
    with pytest.raises(UsageError, match="keep must lie strictly between 0 and 1, not"):
        attenuate(keep)


def test_the_hypergradient_of_alfa(pictures: Pictures, proved: Proved) -> None:
    proved(alfa(Hyper(0.3, per_step=True), Hyper(0.1)), pictures(tasks=2, shape=(4,)))


def test_the_hypergradient_of_the_attenuation(pictures: Pictures, proved: Proved) -> None:
    proved(chain(momentum(Hyper(0.3)), sgd(Hyper(0.3)), attenuate()), pictures(tasks=2, shape=(4,)))
