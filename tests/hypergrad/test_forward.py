from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, func, nn

from rbml import Batch, Episode, Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Forward, Unrolled, online
from rbml.hypergrad.forward import directions, unflattened
from rbml.inner import Inner
from rbml.strategy import Hyper, chain, l2, momentum, sgd
from rbml.tree import Tree, under

Pictures = Callable[..., Episodes]
Errors = Callable[[Tree, Tree], float]


@pytest.fixture
def learner(roughened: Callable[[nn.Module], nn.Module]) -> Learner:
    rules = chain(l2(Hyper(0.1)), momentum(Hyper(0.7, per="layer")), sgd(Hyper(0.2, per="tensor", per_step=True)))
    return assemble(roughened(models.MLP(4, 3, (5,), nn.Tanh)), rules, 5)


@pytest.fixture
def task(learner: Learner, pictures: Pictures) -> tuple[Inner, Tree]:
    support, query = (Batch(batch.x[0], batch.y[0]) for batch in pictures(shape=(4,)))
    return learner.inner(Episode(support, query)), {name: leaf.detach() for name, leaf in learner.named_parameters()}


def test_unit_directions_number_the_leaves_from_end_to_end() -> None:
    m = {"a": torch.zeros(2, 2), "b": torch.zeros(()), "c": torch.zeros(3)}
    whole = directions(m, 0, 8)
    flat = torch.cat([leaf.reshape(8, -1) for leaf in whole.values()], 1)
    assert torch.equal(flat, torch.eye(8))
    part = directions(m, 3, 6)
    assert all(torch.equal(part[name], leaf[3:6]) for name, leaf in whole.items())
    numbers = unflattened(torch.arange(8.0), m)
    assert numbers["a"].tolist() == [[0, 1], [2, 3]] and numbers["b"] == 4 and numbers["c"].tolist() == [5, 6, 7]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_chunk_changes_nothing(chunk: int, task: tuple[Inner, Tree], error: Errors) -> None:
    inner, m = task
    m = {name: leaf for name, leaf in m.items() if name.startswith("phi.")}
    assert error(Forward(chunk)(inner, m).grads, Unrolled()(inner, m).grads) < 1e-12


def test_nothing_to_learn_is_the_loss_alone(task: tuple[Inner, Tree]) -> None:
    inner, m = task
    result = Forward()(inner, {})
    assert result.grads == {} and torch.allclose(result.loss, Unrolled()(inner, m).loss, rtol=1e-14)


def test_too_many_numbers_are_refused_with_the_way_out(learner: Learner, pictures: Pictures) -> None:
    learner.hypergradient = Forward(limit=40)
    with pytest.raises(UsageError, match="there are 66, more than limit=40: use Adjoint, or fix theta0"):
        learner.meta_gradient(pictures(shape=(4,)))
    learner.model.requires_grad_(False)  # what the message says
    found = learner.meta_gradient(pictures(shape=(4,))).grads
    learner.hypergradient = Adjoint(keep=1)
    truth = learner.meta_gradient(pictures(shape=(4,))).grads
    assert all(torch.allclose(found[name], grad, rtol=1e-10) for name, grad in truth.items())
    assert set(found) == set(truth) == {name for name, _ in learner.named_parameters() if name.startswith("phi.")}


@pytest.mark.parametrize("options", [{"chunk": 0}, {"limit": 0}])
def test_options_that_mean_nothing_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Forward(**options)


# ------------------------------------------------------------------------------------------------------------- online


@pytest.mark.parametrize("every", [1, 2])
def test_online_with_a_phi_that_stays_it_is_forward_mode_at_every_step(
    every: int, task: tuple[Inner, Tree], error: Errors
) -> None:
    inner, m = task
    run = online.begin(inner, m, "phi.*")
    while run.t < inner.steps:
        found, run = online.go_on(inner, m, run, every)
        short = replace(inner, steps=run.t)
        truth = Forward()(short, {name: leaf for name, leaf in m.items() if name.startswith("phi.")})
        assert error(found.grads, truth.grads) < 1e-12
        assert torch.allclose(found.loss, truth.loss, rtol=1e-13)
    assert run.t == 5
    with pytest.raises(UsageError, match="a run of 5 steps that has taken 5 cannot take 1 more"):
        online.go_on(inner, m, run)


def test_online_is_the_recursion_of_the_paper(task: tuple[Inner, Tree]) -> None:
    """RTHO written out: Z <- A Z + B with Jacobians, phi moved by every hypergradient, against the functions here."""
    inner, m = task
    names = [name for name in m if name.startswith("phi.")]
    rate = 0.05

    def moved(m: Tree, grads: Tree) -> Tree:
        return m | {name: m[name] - rate * grads[name] for name in names}

    run, mine = online.begin(inner, m, "phi.*"), m
    for _ in range(5):
        found, run = online.go_on(inner, mine, run)
        mine = moved(mine, found.grads)

    carry, theirs = inner.start(m), m
    like = {f"theta.{k}": v for k, v in carry.theta.items()} | {f"state.{k}": v for k, v in carry.state.items()}
    z = torch.zeros(sum(leaf.numel() for leaf in like.values()), sum(m[name].numel() for name in names)).double()

    def flat(tree: Tree) -> Tensor:
        return torch.cat([leaf.flatten() for leaf in tree.values()])

    def carried(numbers: Tensor) -> tuple[Tree, Tree]:
        tree = unflattened(numbers, like)
        return under(tree, "theta."), under(tree, "state.")

    def stepped(numbers: Tensor, phi: Tensor, t: int) -> Tensor:
        theta, state = carried(numbers)
        meta = theirs | unflattened(phi, {name: m[name] for name in names})
        grads = func.grad(inner.objective)(theta, meta, t)
        return torch.cat(
            [flat(tree) for tree in inner.update(grads, carry._replace(theta=theta, state=state), meta, t)]
        )

    def outer(numbers: Tensor) -> Tensor:
        theta, state = carried(numbers)
        return inner.outer(carry._replace(theta=theta, state=state), theirs)[0]

    numbers = flat(like)
    for t in range(5):
        phi = flat({name: theirs[name] for name in names})
        a, b = func.jacrev(stepped, argnums=(0, 1))(numbers, phi, t)
        numbers, z = stepped(numbers, phi, t), a @ z + b
        by_phi = func.grad(outer)(numbers) @ z
        theirs = moved(theirs, unflattened(by_phi, {name: m[name] for name in names}))
    for name in names:
        assert float((theirs[name] - m[name]).norm()) > 1e-6
        assert torch.allclose(mine[name], theirs[name], rtol=1e-11), name


def test_online_runs_are_vectorised_over_tasks(learner: Learner, pictures: Pictures) -> None:
    m = {name: leaf.detach() for name, leaf in learner.named_parameters()}

    def one(sx: Tensor, sy: Tensor, qx: Tensor, qy: Tensor) -> Tree:
        inner, meta = learner.inner(Episode(Batch(sx, sy), Batch(qx, qy))), m
        run = online.begin(inner, meta, "phi.sgd.*")
        for _ in range(2):
            found, run = online.go_on(inner, meta, run, 2)
            meta = meta | {name: meta[name] - 0.1 * grad for name, grad in found.grads.items()}
        return found.grads

    episodes = pictures(shape=(4,))
    tensors = (*episodes.support[:2], *episodes.query[:2])
    whole = func.vmap(one)(*tensors)
    for index in range(episodes.tasks):
        alone = one(*(tensor[index] for tensor in tensors))
        assert all(torch.allclose(whole[name][index], grad, rtol=1e-10) for name, grad in alone.items())


def test_online_refuses_patterns_that_match_nothing_or_too_much(task: tuple[Inner, Tree]) -> None:
    inner, m = task
    with pytest.raises(UsageError, match=r"learn='phi.adam.\*' matches no meta-parameter"):
        online.begin(inner, m, "phi.adam.*")
    with pytest.raises(UsageError, match=r"matches 66 numbers.*limit=50"):
        online.begin(inner, m, "*", limit=50)
    run = online.begin(inner, m, "phi.sgd.lr/head.bias")
    with pytest.raises(UsageError, match="cannot take 0 more"):
        online.go_on(inner, m, run, 0)
