from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rbml.errors import UsageError
from rbml.strategy import Hyper, Rule, Start, StepInfo, Term, TermInputs, chain, l2, momentum, sgd, weight_decay
from rbml.tree import Tree


def theta() -> Tree:
    return {"a.w": torch.tensor([1.0, -2.0]), "b.w": torch.tensor([3.0])}


def test_the_order_of_a_chain_has_a_meaning() -> None:
    grads = {"a.w": torch.tensor([0.5, 0.5]), "b.w": torch.tensor([-1.0])}
    coupled, _ = chain(weight_decay(0.1), sgd(0.5)).update(
        grads, {}, theta(), phi_for(chain(weight_decay(0.1), sgd(0.5))), StepInfo(0)
    )
    apart, _ = chain(sgd(0.5), weight_decay(0.1)).update(
        grads, {}, theta(), phi_for(chain(weight_decay(0.1), sgd(0.5))), StepInfo(0)
    )
    for name, leaf in theta().items():
        assert torch.allclose(coupled[name], leaf - 0.5 * (grads[name] + 0.1 * leaf))
        assert torch.allclose(apart[name], leaf - 0.5 * grads[name] - 0.1 * leaf)


def phi_for(strategy: object) -> Tree:
    learned, fixed = strategy.initial(theta(), 1, None)  # type: ignore[attr-defined]
    return learned | fixed


def test_chains_are_laid_open_and_keep_their_order() -> None:
    inner = chain(weight_decay(0.1), momentum(0.9))
    plan = chain(l2(0.1), inner, sgd(0.1))
    assert [part.name for part in plan.parts] == ["l2", "weight_decay", "momentum", "sgd"]
    assert [rule.name for rule in plan.rules] == ["weight_decay", "momentum", "sgd"]
    assert [term.name for term in plan.terms] == ["l2"]


def test_phi_is_filed_under_part_and_number() -> None:
    plan = chain(l2(Hyper(0.1, per="layer")), momentum(Hyper(0.9, per_step=True)), sgd(0.5))
    learned, fixed = plan.initial(theta(), 3, None)
    assert list(learned) == ["l2.strength/a.*", "l2.strength/b.*", "momentum.decay"]
    assert list(fixed) == ["sgd.lr"] and learned["momentum.decay"].shape == (3,)


def test_two_of_a_kind_need_two_names_and_then_have_their_own_numbers_and_state() -> None:
    with pytest.raises(UsageError, match="two parts of a strategy are named momentum, sgd: give one of them another"):
        chain(sgd(0.1), momentum(0.1), sgd(0.2), momentum(0.3))
    plan = chain(momentum(0.5), momentum(0.25, name="slow"), sgd(1.0))
    phi, grads = phi_for(plan), {"a.w": torch.ones(2), "b.w": torch.ones(1)}
    state = plan.init(theta())
    assert list(state) == ["momentum/a.w", "momentum/b.w", "slow/a.w", "slow/b.w"]
    _, state = plan.update(grads, state, theta(), phi, StepInfo(0))
    _, state = plan.update(grads, state, theta(), phi, StepInfo(1))
    assert torch.allclose(state["momentum/b.w"], torch.tensor([1.5]))
    assert torch.allclose(state["slow/b.w"], torch.tensor([0.25 * 1.0 + 1.5]))


def test_names_that_begin_alike_are_not_mixed_up() -> None:
    plan = chain(weight_decay(0.5, name="m"), weight_decay(0.25, name="mm"), sgd(1.0))
    after, _ = plan.update({"a.w": torch.zeros(2), "b.w": torch.zeros(1)}, {}, theta(), phi_for(plan), StepInfo(0))
    assert torch.allclose(after["b.w"], torch.tensor([3.0 - 0.75 * 3.0]))


def test_two_numbers_of_one_rule_whose_names_begin_alike() -> None:
    def update(d: Tree, state: Tree, theta: Tree, values: dict[str, Tree], at: StepInfo) -> tuple[Tree, Tree]:
        return {name: values["lr"][name] * leaf + values["lr2"][name] for name, leaf in d.items()}, state

    rule = Rule("r", {"lr": Hyper(2.0, per="tensor"), "lr2": Hyper(10.0, per="tensor")}, update)  # type: ignore[arg-type]
    plan = chain(rule)
    after, _ = plan.update({"a.w": torch.ones(2), "b.w": torch.ones(1)}, {}, theta(), phi_for(plan), StepInfo(0))
    assert float(after["b.w"]) == 3.0 - 12.0


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(UsageError, match=r"needs at least one rule, such as sgd\(0.1\)"):
        chain()


def scene(at: Tree) -> TermInputs:
    zero = torch.zeros(1)
    return TermInputs(at, at, zero, zero, zero, lambda prediction, y: torch.tensor(7.0), StepInfo(0))


def test_terms_add_to_the_loss() -> None:
    plan = chain(l2(1.0), l2(3.0, name="more"), sgd(0.1))
    assert float(plan.objective(phi_for(plan), scene(theta()))) == 7 + 0.5 * (1.0 + 3.0) * (1 + 4 + 9)


def test_a_term_may_take_the_place_of_the_loss() -> None:
    alone = Term("alone", {}, lambda values, inputs: torch.tensor(2.0), alone=True)
    plan = chain(l2(1.0), alone, sgd(0.1))
    assert float(plan.objective(phi_for(plan), scene(theta()))) == 2 + 0.5 * (1 + 4 + 9)


def test_only_one_part_can_make_the_head() -> None:
    one = Start("one", {}, lambda values, features: (torch.zeros(1), torch.zeros(1)))
    with pytest.raises(UsageError, match="one and two would both make the head"):
        chain(one, replace(one, name="two"), sgd(0.1))


def test_a_part_remembers_how_it_was_made() -> None:
    made = momentum(Hyper(0.5, bounds=(0, 1)), nesterov=True).origin
    assert made is not None and made.by == "momentum"
    assert made.settings == {
        "decay": Hyper(0.5, bounds=(0, 1)),
        "nesterov": True,
        "dampening": 0.0,
        "name": "momentum",
    }
