"""SAMA against the implicit derivative whose inverse is the identity, taken exactly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from rbml import BlindError, Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Implicit, Sama
from rbml.hypergrad.solve import Matrix
from rbml.inner import Carry, Inner
from rbml.strategy import Hyper, Strategy, adam, chain, l2, momentum, proximal, sgd
from rbml.tree import Tree

Errors = Callable[[Tree, Tree], float]
Roughened = Callable[[nn.Module], nn.Module]


class Identity:
    """Take the inverse for the identity."""

    def __call__(self, a: Matrix, transposed: Matrix, b: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
        return b, torch.zeros(())


RULES: dict[str, Callable[[], Strategy]] = {
    "sgd": lambda: chain(sgd(0.3)),
    "momentum": lambda: chain(momentum(0.5), sgd(0.3)),
    "adam": lambda: chain(adam(0.05)),
}


def learner_for(rules: str, roughened: Roughened) -> Learner:
    terms = [l2(Hyper(0.2, per="element")), proximal(Hyper(0.3, per="tensor"))]
    return assemble(roughened(models.MLP(4, 3, (5,), nn.Tanh)), chain(*terms, RULES[rules]()), 4)


@pytest.mark.parametrize("rules", RULES)
def test_it_is_the_implicit_derivative_with_the_identity_for_an_inverse(
    rules: str, pictures: Callable[..., Episodes], roughened: Roughened, error: Errors
) -> None:
    learner, episodes = learner_for(rules, roughened), pictures(shape=(4,))
    learner.hypergradient = Implicit(Identity(), at="step")
    truth = learner.meta_gradient(episodes)
    learner.hypergradient = Sama(alpha=1e-4)
    found = learner.meta_gradient(episodes)
    assert error(found.grads, truth.grads) < 1e-7
    assert torch.allclose(found.loss, truth.loss, rtol=1e-13)
    assert torch.allclose(found.info["moved"], torch.full((3,), 1e-4).double())
    learner.hypergradient = Adjoint(keep=1)
    assert error(found.grads, learner.meta_gradient(episodes).grads) > 0.1, "it is an approximation"


def test_the_error_of_the_difference_falls_with_the_square(
    pictures: Callable[..., Episodes], roughened: Roughened, error: Errors
) -> None:
    learner = assemble(roughened(models.MLP(4, 3, (5,), nn.Tanh)), chain(proximal(0.3), sgd(0.3)), 4, adapt="head.*")
    episodes = pictures(shape=(4,))
    learner.hypergradient = Implicit(Identity(), at="step")
    truth = learner.meta_gradient(episodes).grads
    errors = []
    for alpha in (0.2, 0.1, 0.05):
        learner.hypergradient = Sama(alpha)
        errors.append(error(learner.meta_gradient(episodes).grads, truth))
    assert all(3.7 < large / small < 4.3 for large, small in pairwise(errors)), errors


def test_where_the_mixed_derivative_is_constant_it_is_the_last_step_of_the_exact_one() -> None:
    """f = f0(theta) + shift . theta: DARTS, T1-T2 and SAMA agree, and the last step gives -lr dL/dtheta."""
    goal = torch.randn(4).double()
    inner = Inner(
        lambda m: Carry({"w": torch.ones(4).double()}, {}),
        lambda theta, m, t: (theta["w"] ** 4).sum() / 4 + (m["shift"] * theta["w"]).sum(),
        lambda grads, carry, m, t: Carry({"w": carry.theta["w"] - 0.1 * grads["w"]}, {}),
        lambda carry, m: (((carry.theta["w"] - goal) ** 2).sum(), {"theta": carry.theta["w"]}),
        3,
    )
    m = {"shift": torch.randn(4).double()}
    found, exact = Sama()(inner, m), Adjoint(window=1)(inner, m)
    assert torch.allclose(found.grads["shift"], exact.grads["shift"], rtol=1e-11)
    assert torch.allclose(found.grads["shift"], -0.2 * (found.aux["theta"] - goal), rtol=1e-11)


def test_a_flat_outer_loss_gives_zero_and_not_nan() -> None:
    inner = Inner(
        lambda m: Carry({"w": torch.ones(4).double()}, {}),
        lambda theta, m, t: (m["a"] * theta["w"] ** 2).sum(),
        lambda grads, carry, m, t: Carry({"w": carry.theta["w"] - 0.1 * grads["w"]}, {}),
        lambda carry, m: (0 * carry.theta["w"].sum() + m["a"] ** 2, {}),
        2,
    )
    assert float(Sama()(inner, {"a": torch.tensor(3.0).double()}).grads["a"]) == 6.0


def test_it_names_what_it_is_blind_to_and_the_way_out(pictures: Callable[..., Episodes]) -> None:
    learner = assemble(models.MLP(4, 3, (5,)).double(), sgd(Hyper(0.1)), 2, hypergradient=Sama())
    with pytest.raises(BlindError) as caught:
        learner.meta_gradient(pictures(shape=(4,)))
    text = str(caught.value)
    assert "phi.sgd.lr" in text and "model.head.weight" in text and "FirstOrder" in text


def test_options_that_mean_nothing_are_refused(pictures: Callable[..., Episodes]) -> None:
    with pytest.raises(UsageError, match="alpha must be a number above 0, not 0"):
        Sama(alpha=0)
    learner = assemble(models.MLP(4, 3, (5,)).double(), chain(proximal(0.1), sgd(0.1)), 0, hypergradient=Sama())
    with pytest.raises(UsageError, match="this one has no steps"):
        learner.meta_gradient(pictures(shape=(4,)))
