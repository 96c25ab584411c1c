"""What each kind of part (rule, term, gate, start) must pass: a new member of ``strategy.ALL`` inherits it."""

from __future__ import annotations

import pytest
import torch
from tests.contracts.parts import (
    GATES,
    REAL_ONLY,
    RULES,
    STARTS,
    TERMS,
    granular,
    leaves,
    made,
    moment,
    phi_of,
    scene,
    tree,
    unpacked,
)
from torch import Tensor, func
from torch.fx.experimental.proxy_tensor import make_fx

from rbml.errors import UsageError
from rbml.strategy import Features, Term, chain, sgd
from rbml.tree import Tree


@pytest.mark.parametrize(("name", "per"), granular(RULES))
def test_a_rule_is_a_pure_function_of_what_it_is_given(name: str, per: str) -> None:
    plan, theta = chain(made(name, per, per_step=True)), tree(1)
    phi, state = phi_of(plan), plan.init(theta)
    given = [theta, state, phi, tree(2)]
    before = [{key: leaf.clone() for key, leaf in one.items()} for one in given]
    first = plan.update(given[3], state, theta, phi, moment(1))
    again = plan.update(given[3], state, theta, phi, moment(1))
    for one, same in zip(first, again, strict=True):
        assert all(torch.equal(one[key], same[key]) for key in one)
    assert all(torch.equal(one[key], old[key]) for one, old in zip(given, before, strict=True) for key in old)
    for one, like in zip(first, (theta, state), strict=True):
        assert {key: leaf.shape for key, leaf in one.items()} == {key: leaf.shape for key, leaf in like.items()}
        assert all(leaf.dtype == torch.float64 for leaf in one.values())
    assert all(key.startswith(f"{name}/") for key in state)


@pytest.mark.parametrize(("name", "per"), granular(RULES))
def test_a_rule_has_the_derivatives_that_it_should(name: str, per: str) -> None:
    """Both modes agree with central differences after two steps, by theta, gradient and phi, and under vmap."""
    plan = chain(made(name, per, per_step=True), sgd(0.5, name="last"))
    phi = phi_of(plan)
    state = plan.update(tree(3), plan.init(tree(1)), tree(1), phi, moment(0))[1]  # not zero
    given = (tree(2), state, tree(1), phi)

    def run(*flat: Tensor) -> Tensor:
        grads, state, theta, phi = unpacked(flat, given)
        theta, state = plan.update(grads, state, theta, phi, moment(1))
        theta, after = plan.update({key: grads[key] * theta[key] for key in grads}, state, theta, phi, moment(2))
        seen = torch.cat([leaf.flatten() for leaf in (*theta.values(), *after.values())])
        return (seen * torch.linspace(1, 2, len(seen), dtype=torch.float64)).sum()

    assert torch.autograd.gradcheck(run, leaves(*given), check_forward_ad=True, check_batched_grad=True, fast_mode=True)


@pytest.mark.parametrize("name", RULES)
def test_derivatives_stay_finite_at_zero_gradient(name: str) -> None:
    plan = chain(made(name), sgd(0.5, name="last"))
    phi, zero = phi_of(plan), {key: torch.zeros_like(leaf) for key, leaf in tree().items()}
    given = (zero, tree(1), phi)

    def run(*flat: Tensor) -> Tensor:
        grads, theta, phi = unpacked(flat, given)
        theta, state = plan.update(grads, plan.init(theta), theta, phi, moment(0))
        theta, _ = plan.update(grads, state, theta, phi, moment(1))
        return torch.stack([leaf.sum() for leaf in theta.values()]).sum()

    grads = torch.autograd.grad(run(*(inputs := leaves(*given))), inputs, allow_unused=True)
    assert all(bool(torch.isfinite(grad).all()) for grad in grads if grad is not None)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_vectorised_over_tasks_equals_the_loop(name: str) -> None:
    plan = chain(made(name))
    phi = phi_of(plan)
    tasks = [tree(seed) for seed in range(3)]
    stacked = {key: torch.stack([one[key] for one in tasks]) for key in tasks[0]}
    keys = torch.tensor([3, 5, 9])

    def two(grads: Tree, key: Tensor) -> Tree:
        theta, state = plan.update(grads, plan.init(grads), grads, phi, moment(0, key))
        return plan.update(grads, state, theta, phi, moment(1, key))[0]

    whole = func.vmap(two)(stacked, keys)
    for index, one in enumerate(tasks):
        assert all(torch.allclose(whole[key][index], leaf, rtol=1e-12) for key, leaf in two(one, keys[index]).items())
    traced = make_fx(func.vmap(two))({key: leaf + 1 for key, leaf in stacked.items()}, keys + 1)(stacked, keys)
    assert all(torch.equal(traced[key], leaf) for key, leaf in whole.items()), "traced, it depends on what it is given"


@pytest.mark.parametrize(("name", "per"), granular(TERMS))
def test_a_term_is_a_scalar_with_derivatives(name: str, per: str) -> None:
    plan = chain(made(name, per, per_step=True), sgd(0.1))
    phi = phi_of(plan)
    prediction = {"prediction": torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))}
    given = (tree(1), tree(2), phi, prediction)

    def run(*flat: Tensor) -> Tensor:
        theta, theta0, phi, prediction = unpacked(flat, given)
        value = plan.objective(phi, scene(theta, theta0, prediction["prediction"], moment(1)))
        assert value.dim() == 0 and value.dtype == torch.float64
        return value

    inputs = leaves(*given)
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_says_whether_it_looks_at_theta0(name: str) -> None:
    """Engines leave out the derivative by theta0 where it says no."""
    part = made(name)
    assert isinstance(part, Term)
    plan = chain(part, sgd(0.1))
    prediction = torch.randn(5, 2, dtype=torch.float64)
    theta0 = {key: leaf.requires_grad_() for key, leaf in tree(2).items()}
    value = plan.objective(phi_of(plan), scene(tree(1), theta0, prediction, moment(1)))
    assert value.requires_grad == part.anchored


@pytest.mark.parametrize(("name", "per"), [(name, per) for name, per in granular(GATES) if per != "element"])
def test_inputs_come_through_a_gate_with_derivatives(name: str, per: str) -> None:
    plan = chain(made(name, per, per_step=True), sgd(0.1))
    phi = phi_of(plan)
    inputs = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    given = (phi, {"inputs": inputs})

    def run(*flat: Tensor) -> Tensor:
        phi, seen = unpacked(flat, given)
        ((layer, change),) = plan.gated(phi, tree(1), moment(1))
        assert layer == "head"
        came = change(seen["inputs"])
        assert came.shape == inputs.shape and came.dtype == torch.float64
        return came

    assert not torch.equal(run(*leaves(*given)), inputs)
    assert torch.autograd.gradcheck(run, leaves(*given), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, leaves(*given), check_fwd_over_rev=True)


@pytest.mark.parametrize("name", GATES)
def test_a_gate_vectorised_over_tasks_equals_the_loop(name: str) -> None:
    plan = chain(made(name), sgd(0.1))
    phi, theta, keys = phi_of(plan), tree(1), torch.tensor([3, 5, 9])
    inputs = torch.randn(3, 5, 4, dtype=torch.float64)

    def through(inputs: Tensor, key: Tensor) -> Tensor:
        ((_, change),) = plan.gated(phi, theta, moment(1, key))
        return change(inputs)

    whole = func.vmap(through)(inputs, keys)
    each = torch.stack([through(one, key) for one, key in zip(inputs, keys, strict=True)])
    assert torch.allclose(whole, each, rtol=1e-12)
    traced = make_fx(func.vmap(through))(inputs + 1, keys + 1)(inputs, keys)
    assert torch.equal(traced, whole), "traced, it depends on what it is given"


@pytest.mark.parametrize(("name", "real"), [(name, real) for name in STARTS for real in (False, True)])
def test_a_start_makes_a_head_with_derivatives(name: str, real: bool) -> None:
    """For classes and for real values, or it says which of them it is for."""
    plan = chain(made(name), sgd(0.1))
    phi = phi_of(plan)
    features = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    classes = torch.tensor([0, 1, 2, 0, 1, 1])
    outputs = 7 if name in REAL_ONLY else 3  # 2 * 1 + 4 + 1
    y = torch.stack([features[:, 0] + classes] * (1 if name in REAL_ONLY else 3), 1) if real else classes
    given = ({"features": features}, phi)
    if (name, real) in {("prototype", True), ("lda", True), *((one, False) for one in REAL_ONLY)}:
        with pytest.raises(UsageError, match=f"{name} .* use "):
            plan.head(tree(), phi, Features(features, y, outputs))
        return

    def run(*flat: Tensor) -> tuple[Tensor, ...]:
        seen, phi = unpacked(flat, given)
        weight, bias = plan.head(tree(), phi, Features(seen["features"], y, outputs))
        assert weight.shape == (outputs, 4) and bias.shape == (outputs,)
        return weight, bias

    assert torch.autograd.gradcheck(run, leaves(*given), check_forward_ad=True, check_batched_grad=True, fast_mode=True)


@pytest.mark.parametrize("name", STARTS)
def test_what_a_mask_leaves_out_does_not_count(name: str) -> None:
    plan = chain(made(name), sgd(0.1))
    phi, features = phi_of(plan), torch.randn(5, 4, dtype=torch.float64)
    y = torch.randn(5, 1, dtype=torch.float64) if name in REAL_ONLY else torch.tensor([0, 1, 2, 0, 1])
    outputs, more = 7 if name in REAL_ONLY else 3, torch.full((2, 4), torch.nan, dtype=torch.float64)
    padded = Features(torch.cat([features, more]), torch.cat([y, y[:2]]), outputs, torch.arange(7) < 5)
    for one, other in zip(
        plan.head(tree(), phi, Features(features, y, outputs)), plan.head(tree(), phi, padded), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-12)
