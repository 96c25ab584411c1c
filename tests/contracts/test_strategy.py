"""What every rule and term must pass: a new member of ``strategy.ALL`` inherits all of it.

The first argument of each is its number, a float or a :class:`Hyper`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import func

from rbml import strategy
from rbml.strategy import Hyper, Rule, Term, chain, sgd
from rbml.strategy.hyper import as_hyper
from rbml.tree import Tree

NAMES = sorted(strategy.ALL)
PERS = ("all", "layer", "tensor", "element")
MAKE: dict[str, Callable[..., Rule | Term]] = dict(strategy.ALL)
RULES = [name for name in NAMES if isinstance(MAKE[name](0.1), Rule)]
TERMS = [name for name in NAMES if isinstance(MAKE[name](0.1), Term)]


def tree(seed: int = 0) -> Tree:
    source = torch.Generator().manual_seed(seed)
    shapes = {"body.0.weight": (4, 3), "body.0.bias": (4,), "head.weight": (2, 4), "scale": ()}
    return {name: torch.randn(shape, dtype=torch.float64, generator=source) for name, shape in shapes.items()}


def phi_of(part: Rule | Term, steps: int = 3) -> Tree:
    learned, fixed = chain(part).initial(tree(), steps, torch.Generator().manual_seed(1))
    return learned | fixed


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_does(name: str) -> None:
    text = str(inspect.getdoc(MAKE[name]))
    first = text.splitlines()[0]
    assert re.fullmatch(r"[A-Z].*\.", first), "one line, a sentence"
    assert ".. math::" in text and "Args:" in text
    for argument in inspect.signature(MAKE[name]).parameters:
        assert re.search(rf"^\s+{argument}: ", text, re.M), f"{argument} is not explained"
    assert MAKE[name](0.1).name == name, "filed under the name in the table"


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_number_is_fixed_and_a_hyper_says_for_itself(name: str) -> None:
    (hyper, *_) = MAKE[name](0.25).hypers.values()
    assert hyper == as_hyper(0.25) and not hyper.learn
    own = Hyper(0.5, per="layer", bounds=(0, 1))
    assert own in MAKE[name](own, name="other").hypers.values()
    assert MAKE[name](own, name="other").name == "other"


@pytest.mark.parametrize(("name", "per", "per_step"), list(product(NAMES, PERS, (False, True))))
def test_phi_has_one_leaf_a_group_whatever_the_part(name: str, per: str, per_step: bool) -> None:
    part = MAKE[name](Hyper(0.3, per=per, per_step=per_step))
    learned, fixed = chain(part).initial(tree(), 3, None)
    count = {"all": 1, "layer": 3, "tensor": 4, "element": 4}[per] * len(
        [1 for hyper in part.hypers.values() if hyper.learn]
    )
    assert len(learned) == count and all(key.startswith(f"{name}.") for key in learned | fixed)
    assert all(leaf.dtype == torch.float64 for leaf in (learned | fixed).values())


@pytest.mark.parametrize(("name", "per"), list(product(RULES, PERS)))
def test_a_rule_is_a_pure_function_of_what_it_is_given(name: str, per: str) -> None:
    part = MAKE[name](Hyper((0.1, 0.4), per=per, per_step=True))
    plan, phi, theta = chain(part), phi_of(part), tree(1)
    state = plan.init(theta)
    given = [theta, state, phi, tree(2)]
    before = [{key: leaf.clone() for key, leaf in one.items()} for one in given]
    first = plan.update(given[3], state, theta, phi, 1)
    again = plan.update(given[3], state, theta, phi, 1)
    for one, same in zip(first, again, strict=True):
        assert all(torch.equal(one[key], same[key]) for key in one)
    assert all(torch.equal(one[key], old[key]) for one, old in zip(given, before, strict=True) for key in old)
    for one, like in zip(first, (theta, state), strict=True):
        assert {key: leaf.shape for key, leaf in one.items()} == {key: leaf.shape for key, leaf in like.items()}
        assert all(leaf.dtype == torch.float64 for leaf in one.values())
    assert all(key.startswith(f"{name}/") for key in state)


@pytest.mark.parametrize(("name", "per"), list(product(RULES, PERS)))
def test_a_rule_has_the_derivatives_that_it_should(name: str, per: str) -> None:
    """Forward and reverse mode agree with central differences, by theta, gradient, state and phi, and under vmap."""
    part = MAKE[name](Hyper((0.1, 0.4), per=per, bounds=(0, 1)))
    plan, phi = chain(part), phi_of(part)
    state = {key: leaf + 0.3 for key, leaf in plan.init(tree(1)).items()}

    given = (tree(2), state, tree(1), phi)

    def run(*flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest = list(flat)
        theta, after = plan.update(*({key: rest.pop(0) for key in like} for like in given), 0)
        return (*theta.values(), *after.values())

    inputs = tuple(leaf.clone().requires_grad_() for one in given for leaf in one.values())
    assert torch.autograd.gradcheck(
        run, inputs, fast_mode=True, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )


@pytest.mark.parametrize("name", RULES)
def test_a_rule_vectorised_over_tasks_equals_the_loop(name: str) -> None:
    part = MAKE[name](Hyper(0.3))
    plan, phi = chain(part), phi_of(part)
    tasks = [tree(seed) for seed in range(3)]
    stacked = {key: torch.stack([one[key] for one in tasks]) for key in tasks[0]}

    def two(grads: Tree) -> Tree:
        theta, state = plan.update(grads, plan.init(grads), grads, phi, 0)
        return plan.update(grads, state, theta, phi, 1)[0]

    whole = func.vmap(two)(stacked)
    for index, one in enumerate(tasks):
        assert all(torch.allclose(whole[key][index], leaf, rtol=1e-14) for key, leaf in two(one).items())


@pytest.mark.parametrize(("name", "per"), list(product(TERMS, PERS)))
def test_a_term_is_a_scalar_with_derivatives(name: str, per: str) -> None:
    part = MAKE[name](Hyper((0.1, 0.4), per=per, bounds=(0, None)))
    plan, phi, theta = chain(part, sgd(0.1)), phi_of(part), tree(1)
    batch = (torch.randn(5, 3), torch.arange(5), torch.randn(5, 2))
    given = (theta, tree(2), phi)

    def run(*flat: torch.Tensor) -> torch.Tensor:
        rest = list(flat)
        value = plan.term(*({key: rest.pop(0) for key in like} for like in given), batch, 0)
        assert isinstance(value, torch.Tensor) and value.dim() == 0
        return value

    inputs = tuple(leaf.clone().requires_grad_() for one in given for leaf in one.values())
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(run, inputs, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_enters_the_way_that_chain_says(name: str) -> None:
    """``Strategy.terms_of`` decides what a first-order engine is blind to."""
    part = MAKE[name](Hyper(0.3))
    plan = chain(part, sgd(0.1, name="last"))
    learned, _ = plan.initial(tree(), 1, None)
    assert list(plan.terms_of(learned)) == (list(learned) if name in TERMS else [])
