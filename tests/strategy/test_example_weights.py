from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml import Batch, Episodes, Job, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.strategy import Hyper, StepInfo, Strategy, TermInputs, chain, example_weights, sgd, weight_net
from rbml.tasks import generator
from rbml.tasks.base import one
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Curves = Callable[..., Episodes]
Proved = Callable[..., Learner]


def scene(prediction: Tensor, y: Tensor | None = None) -> TermInputs:
    one = {"w": torch.ones(2, dtype=torch.float64)}
    loss = (lambda p, y: p.sum()) if y is None else F.cross_entropy
    return TermInputs(one, one, prediction, prediction if y is None else y, prediction, loss, StepInfo(0))


def phi_of(plan: Strategy, by: float = 1.0) -> Tree:
    learned, fixed = plan.initial(scene(torch.zeros(1)).theta, 1, generator(1))
    return {name: leaf + by * torch.randn_like(leaf) for name, leaf in learned.items()} | fixed


def test_weights_of_their_own() -> None:
    plan = chain(example_weights(5), sgd(0.1))
    phi, prediction, y = phi_of(plan), torch.randn(5, 3, dtype=torch.float64), torch.arange(5) % 3
    weights = phi["example_weights.weights/raw"].sigmoid()
    losses = F.cross_entropy(prediction, y, reduction="none")
    assert torch.allclose(plan.objective(phi, scene(prediction, y)), (weights @ losses) / weights.sum(), rtol=1e-13)
    phi["example_weights.weights/raw"] = torch.tensor([0.0, -800.0, 0.0, 0.0, -800.0], dtype=torch.float64)
    assert torch.allclose(plan.objective(phi, scene(prediction, y)), losses[[0, 2, 3]].mean(), rtol=1e-13)


@pytest.mark.parametrize("term", [example_weights(6), weight_net()])
def test_it_starts_as_the_plain_loss(term: object, pictures: Pictures) -> None:
    module, episodes = models.MLP(4, 3, (5,)).double(), pictures(shape=(4,))
    plain, found = assemble(module, sgd(0.4), 3), assemble(module, chain(term, sgd(0.4)), 3)  # type: ignore[arg-type]
    assert torch.allclose(found.evaluate(episodes).loss, plain.evaluate(episodes).loss, rtol=1e-13)


def test_another_number_of_examples_is_refused(pictures: Pictures) -> None:
    learner = assemble(models.MLP(4, 3, (5,)).double(), chain(example_weights(5), sgd(0.1)))
    with pytest.raises(UsageError, match="example_weights has weights for 5 examples, but the support set has 6"):
        learner.meta_gradient(pictures(shape=(4,)))
    with pytest.raises(UsageError, match="count must be at least 1, not 0"):
        example_weights(0)
    with pytest.raises(UsageError, match="a hidden width must be at least 1, not 0"):
        weight_net(hidden=(0,))


def test_the_hypergradient_of_one_step_is_that_of_learning_to_reweight(pictures: Pictures) -> None:
    """Ren et al.: example i deserves lr <query gradient, its own gradient>; here less the mean, over the sum."""
    learner = assemble(models.MLP(4, 3, (5,), nn.Tanh).double(), chain(example_weights(6), sgd(0.4)))
    episodes = pictures(tasks=1, shape=(4,))
    support, query = (Batch(batch.x[0], batch.y[0]) for batch in episodes)
    theta = {name: leaf.detach() for name, leaf in learner.model.named_parameters()}

    def gradient(theta: Tree, x: Tensor, y: Tensor) -> Tree:
        def loss(at: Tree) -> Tensor:
            return F.cross_entropy(func.functional_call(learner.model, at, (x,)), y)

        return func.grad(loss)(theta)

    grads = gradient(theta, support.x, support.y)
    after = {name: leaf - 0.4 * grads[name] for name, leaf in theta.items()}
    towards = gradient(after, query.x, query.y)
    deserved = torch.zeros(6, dtype=torch.float64)
    for i in range(6):
        own = gradient(theta, support.x[i : i + 1], support.y[i : i + 1])
        deserved[i] = 0.4 * sum((towards[name] * own[name]).sum() for name in theta)
    slope = 0.25  # of the sigmoid at one half
    expected = -slope * (deserved - deserved.mean()) / (6 * 0.5)
    found = learner.meta_gradient(episodes).grads["phi.example_weights.weights/raw"]
    assert torch.allclose(found, expected, rtol=1e-10)


def test_the_weighted_sum_over_the_number_of_examples_lets_small_weights_make_small_steps() -> None:
    plan = chain(example_weights(5, "examples"), sgd(0.1))
    losses, raw = torch.rand(5, dtype=torch.float64), torch.tensor([0.3, -1.0, 2.0, 0.0, -4.0], dtype=torch.float64)
    (term,) = plan.terms
    inputs = TermInputs({}, {}, losses, losses, losses, lambda prediction, _: prediction.mean(), StepInfo(0))
    found = term.value({"weights": {"raw": raw}}, inputs)
    assert torch.allclose(found, (raw.sigmoid() * losses).sum() / 5)
    with pytest.raises(UsageError, match="mean_over"):
        example_weights(5, "sum")  # type: ignore[arg-type]


def test_weights_from_losses_and_how_much_an_example_counts() -> None:
    """The derivative by the loss of one example is what the docstring says it is."""
    plan, losses = chain(weight_net(hidden=(4,)), sgd(0.1)), torch.rand(5, dtype=torch.float64)
    phi = phi_of(plan)
    net = nn.Sequential(nn.Linear(1, 4), nn.SiLU(), nn.Linear(4, 1), nn.Sigmoid()).double()
    leaves = {f"{2 * i}.{kind}": phi[f"weight_net.net/{i}/{kind}"] for i in (0, 1) for kind in ("weight", "bias")}
    net.load_state_dict(leaves)

    def weight(loss: Tensor) -> Tensor:
        output: Tensor = net(loss[None])[0]
        return output

    weights, slopes = func.vmap(weight)(losses), func.vmap(func.grad(weight))(losses)
    mean = (weights @ losses) / weights.sum()
    slope, value = func.grad_and_value(lambda p: plan.objective(phi, scene(p)))(losses)
    assert torch.allclose(value, mean, rtol=1e-13)
    assert torch.allclose(slope, (weights + slopes * (losses - mean)) / weights.sum(), rtol=1e-11)


@pytest.mark.parametrize("term", [example_weights(6), weight_net(hidden=(4,))])
def test_the_hypergradient(term: object, pictures: Pictures, proved: Proved) -> None:
    proved(chain(term, sgd(Hyper(0.3))), pictures(tasks=2, shape=(4,)))  # type: ignore[arg-type]


def test_the_hypergradient_of_weights_in_a_regression(curves: Curves, proved: Proved) -> None:
    proved(chain(weight_net(hidden=(4,)), sgd(Hyper(0.3))), curves(tasks=2), lambda p, y: ((p - y) ** 2).mean())


def test_an_example_of_a_training_run_has_its_weight_in_every_mini_batch() -> None:
    """Against a loop that looks up the weights by hand; the steps of an epoch see each example once."""
    x, y = torch.randn(12, 4, generator=generator(0)).double(), torch.arange(12) % 3
    job = Job.of(Batch(x, y), Batch(x[:5], y[:5]), 4, [3])
    net = nn.Linear(4, 3).double()
    learner = assemble(net, chain(example_weights(12), sgd(0.5)), 6)
    raw = torch.randn(12, generator=generator(1)).double()
    learner.phi.load_state_dict({name: raw for name in learner.phi.state_dict() if "raw" in name}, strict=False)
    m = {name: leaf.detach().requires_grad_() for name, leaf in learner.named_parameters()}
    ((name, weights),) = ((name, leaf) for name, leaf in m.items() if "raw" in name)
    theta = {key: m[f"model.{key}"] for key in ("weight", "bias")}
    for t in range(6):
        places = one(job, 0).rows(t)
        losses = F.cross_entropy(func.functional_call(net, theta, (x[places],)), y[places], reduction="none")
        own = weights[places].sigmoid()
        grads = torch.autograd.grad((own @ losses) / own.sum(), list(theta.values()), create_graph=True)
        theta = {key: leaf - 0.5 * grad for (key, leaf), grad in zip(theta.items(), grads, strict=True)}
    outer = F.cross_entropy(func.functional_call(net, theta, (x[:5],)), y[:5])
    (truth,) = torch.autograd.grad(outer, [weights])
    assert torch.allclose(learner.meta_gradient(job).grads[name], truth, rtol=1e-9, atol=1e-12)
