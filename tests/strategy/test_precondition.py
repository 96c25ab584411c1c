from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rbml import Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint
from rbml.strategy import Hyper, StepInfo, Strategy, chain, kronecker, low_rank, momentum, sgd
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Proved = Callable[..., Learner]


def tensors(ways: int = 3) -> Tree:
    shapes = {
        "conv.weight": (3, 2, 2, 2),
        "conv.bias": (3,),
        "head.weight": (ways, 3),
        "head.bias": (ways,),
        "gain": (),
    }
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}


def random_phi(plan: Strategy) -> Tree:
    learned, fixed = plan.initial(tensors(), 1, torch.Generator())
    return {name: leaf + torch.randn_like(leaf) for name, leaf in learned.items()} | fixed


def direction(plan: Strategy, phi: Tree, grads: Tree) -> Tree:
    zero = {name: torch.zeros_like(leaf) for name, leaf in grads.items()}
    return {name: -leaf for name, leaf in plan.update(grads, {}, zero, phi, StepInfo(0))[0].items()}


@pytest.mark.parametrize("rule", [kronecker(), low_rank(3)])
def test_it_starts_as_plain_sgd(rule: object, pictures: Pictures) -> None:
    module = models.Conv4(3, filters=3).double()
    plain, conditioned = assemble(module, sgd(0.4), 3), assemble(module, chain(rule, sgd(0.4)), 3)  # type: ignore[arg-type]
    losses = [learner.evaluate(pictures()).loss for learner in (plain, conditioned)]
    assert torch.allclose(*losses, rtol=1e-13)


def test_kronecker_is_one_matrix_on_the_flattened_tensor() -> None:
    plan, grads = chain(kronecker(), sgd(1.0)), tensors()
    phi = random_phi(plan)
    found = direction(plan, phi, grads)

    def matrix(key: str) -> torch.Tensor:
        return phi[f"kronecker.matrices/{key}"]

    whole = torch.kron(torch.kron(matrix("conv.weight/out"), matrix("conv.weight/in")), matrix("conv.weight/filter"))
    assert torch.allclose(found["conv.weight"].flatten(), whole @ grads["conv.weight"].flatten(), rtol=1e-12)
    sides = matrix("head.weight/out"), matrix("head.weight/in")
    assert torch.allclose(found["head.weight"], sides[0] @ grads["head.weight"] @ sides[1].T, rtol=1e-12)
    for name in ("conv.bias", "head.bias", "gain"):
        assert torch.allclose(found[name], matrix(f"{name}/factor") * grads[name], rtol=1e-14)
    assert len(phi) == 3 + 2 + 3 + 1


def test_low_rank_is_one_matrix_on_the_flattened_tensor() -> None:
    plan, grads = chain(low_rank(2), sgd(1.0)), tensors()
    phi = random_phi(plan)
    found = direction(plan, phi, grads)
    for name, grad in grads.items():
        u, v = (phi[f"low_rank.factors/{name}/{one}"].reshape(2, -1) for one in "uv")
        whole = torch.eye(grad.numel(), dtype=torch.float64) + u.T @ v
        assert torch.allclose(found[name].flatten(), whole @ grad.flatten(), rtol=1e-12)


@pytest.mark.parametrize("ways", [2, 5])
def test_in_a_head_for_other_classes_what_mixes_classes_is_left_out(ways: int) -> None:
    grads = tensors(ways)
    plan = chain(kronecker(), low_rank(2), sgd(1.0))
    phi = random_phi(plan)
    found = direction(chain(kronecker(), sgd(1.0)), phi, grads)
    side = phi["kronecker.matrices/head.weight/in"]
    assert torch.allclose(found["head.weight"], grads["head.weight"] @ side.T, rtol=1e-12)
    assert torch.equal(found["head.bias"], grads["head.bias"])
    found = direction(chain(low_rank(2), sgd(1.0)), phi, grads)
    assert all(torch.equal(found[name], grads[name]) for name in ("head.weight", "head.bias"))
    assert not torch.equal(found["conv.bias"], grads["conv.bias"])


def test_a_learner_adapts_to_other_numbers_of_classes(pictures: Pictures) -> None:
    learner = assemble(models.MLP(4, 3, (5,)).double(), chain(kronecker(), low_rank(2), sgd(0.1)), 2)
    for ways in (2, 3, 5):
        assert learner.evaluate(pictures(ways=ways, shape=(4,)), ways=ways).prediction.shape == (3, 3 * ways, ways)


def test_a_rank_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="the rank must be at least 1, not 0"):
        low_rank(0)


@pytest.mark.parametrize("rule", [kronecker(), low_rank(2)])
def test_the_hypergradient(rule: object, pictures: Pictures, proved: Proved) -> None:
    proved(chain(rule, sgd(Hyper(0.3))), pictures(tasks=2, shape=(4,)))  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", [kronecker(), low_rank(2)])
def test_after_momentum_its_steps_can_be_walked_back(
    rule: object, pictures: Pictures, error: Callable[[Tree, Tree], float]
) -> None:
    plan = chain(momentum(0.5), rule, sgd(Hyper(0.3)))  # type: ignore[arg-type]
    learner, episodes = assemble(models.MLP(4, 3, (5,), nn.Tanh).double(), plan, 3), pictures(tasks=1, shape=(4,))
    truth = learner.meta_gradient(episodes).grads
    learner.hypergradient = Adjoint(store="reverse")
    alive = {name: grad for name, grad in truth.items() if not name.endswith("/v")}  # U starts at zero
    found = learner.meta_gradient(episodes).grads
    assert error({name: found[name] for name in alive}, alive) < 1e-12


def test_the_hypergradient_of_the_matrices_of_a_convolution(pictures: Pictures, proved: Proved) -> None:
    module = models.Conv4(3, filters=2, activation=nn.Tanh).double()
    proved(chain(kronecker(), sgd(0.3)), pictures(tasks=2), steps=2, module=module)
