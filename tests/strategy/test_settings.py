"""Options of a strategy by address: what they make, what they refuse, and which name they say was meant."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rbml import strategy
from rbml.errors import UsageError
from rbml.strategy import Hyper, Rule, Scalar, Strategy, Weights, chain, momentum, ridge, sgd, weight_decay
from rbml.strategy.serialize import plain
from rbml.strategy.settings import changed, frozen
from rbml.tree import Tree


def base() -> Strategy:
    return chain(weight_decay(1e-4), momentum(Hyper(0.5, bounds=(0, 1))), sgd(Hyper((0.005, 0.1), per="element")))


def tensors(theta: Tree, steps: int, generator: torch.Generator | None) -> Tree:
    return {"matrix": torch.eye(2)}


@strategy.part
def bent(name: str = "bent") -> Rule:
    """Have tensors."""
    return Rule(name, {"matrices": Weights(tensors)}, lambda d, state, theta, values, at: (d, state))


@strategy.part
def picky(count: int, kind: Any = None, name: str = "picky") -> Rule:
    """Need an argument."""
    return Rule(name, {}, lambda d, state, theta, values, at: (d, state))


@pytest.fixture(autouse=True)
def two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(strategy.ALL, "bent", bent)
    monkeypatch.setitem(strategy.ALL, "picky", picky)


@pytest.mark.parametrize(
    ("settings", "part", "expected"),
    [
        ({"sgd.lr.per": "layer"}, 2, sgd(Hyper((0.005, 0.1), per="layer"))),
        ({"sgd.lr.value": 0.3}, 2, sgd(Hyper(0.3, per="element"))),
        ({"sgd.lr": 0.3}, 2, sgd(0.3)),
        ({"sgd": {"lr": {"value": 1, "per_step": True, "bounds": [0, None]}}}, 2,
         sgd(Hyper(1.0, per="element", per_step=True, bounds=(0.0, None)))),
        ({"sgd.lr.value": 1, "sgd.lr.bounds": [0, math.inf]}, 2, sgd(Hyper(1.0, per="element", bounds=(0.0, None)))),
        ({"sgd.lr": {"value": 1, "per": "tensor", "learn": False}}, 2, sgd(Hyper(1.0, per="tensor", learn=False))),
        ({"weight_decay.rate.per": "layer"}, 0, weight_decay(Hyper(1e-4, per="layer"))),
        ({"weight_decay.rate.value": 0.2}, 0, weight_decay(Hyper(0.2, learn=False))),
        ({"weight_decay.rate": 0.2, "weight_decay.rate.per_step": True}, 0, weight_decay(Hyper(0.2, per_step=True))),
        ({"momentum.nesterov": True}, 1, momentum(Hyper(0.5, bounds=(0, 1)), nesterov=True)),
        ({"momentum.decay.learn": False}, 1, momentum(Hyper(0.5, bounds=(0, 1), learn=False))),
    ],
)  # fmt: skip
def test_a_setting_makes_what_python_would_make(settings: dict[str, Any], part: int, expected: Rule) -> None:
    found = changed(base(), settings)
    assert found.parts[part].hypers == expected.hypers
    assert [one.name for one in found.parts] == ["weight_decay", "momentum", "sgd"]
    flags = {name: value for name, value in expected.origin.settings.items() if not isinstance(value, float | Hyper)}  # type: ignore[union-attr]
    assert flags.items() <= found.parts[part].origin.settings.items()  # type: ignore[union-attr]


def test_a_flag_changes_the_rule_itself() -> None:
    theta, grad = {"w": torch.ones(2)}, {"w": torch.tensor([1.0, 2.0])}
    plan, ahead = chain(momentum(0.5), sgd(0.1)), chain(momentum(0.5, nesterov=True), sgd(0.1))
    for own, other in ((changed(plan, {"momentum.nesterov": True}), ahead), (changed(plan, {}), plan)):
        results = []
        for one in (own, other):
            phi = one.initial(theta, 1, None)[1]
            results.append(one.update(grad, one.init(theta), theta, phi, strategy.StepInfo(0))[0]["w"])
        assert torch.equal(*results)


def test_what_is_not_named_stays_the_same_part() -> None:
    plan = base()
    found = changed(plan, {"sgd.lr": 0.1})
    assert found.parts[0] is plan.parts[0] and found.parts[1] is plan.parts[1]


def test_a_chain_keeps_the_parts_that_are_there_and_begins_others_with_their_defaults() -> None:
    plan = base()
    found = changed(
        plan, {"l2.strength.per": "layer"}, "l2, sgd, momentum, late=weight_decay, weight_decay=weight_decay"
    )
    assert [part.name for part in found.parts] == ["l2", "sgd", "momentum", "late", "weight_decay"]
    assert found.parts[1] is plan.parts[2] and found.parts[4] is plan.parts[0]
    assert found.parts[0].hypers["strength"] == Hyper(1e-3, per="layer")
    assert found.parts[3].hypers == weight_decay().hypers and found.parts[3].origin.by == "weight_decay"  # type: ignore[union-attr]


def test_a_scalar_has_no_granularity() -> None:
    plan = chain(ridge(), sgd(0.1))
    found = changed(plan, {"ridge.strength.bounds": [0, "none"]})
    assert found.parts[0].hypers["strength"] == Scalar(1.0, bounds=(0.0, None))
    with pytest.raises(UsageError, match=r"no field of ridge.strength named 'per'.* \(known: bounds, learn, per_step"):
        changed(plan, {"ridge.strength.per": "layer"})


def test_tensors_can_be_fixed_and_stay_so() -> None:
    plan = changed(chain(bent(), sgd(0.1)), {"bent.matrices.learn": False})
    assert not plan.parts[0].hypers["matrices"].learn
    assert changed(plan, {"bent.matrices.learn": True}).parts[0].hypers["matrices"].learn
    with pytest.raises(UsageError, match=r"no option of bent named 'matrixes': did you mean 'matrices'"):
        changed(plan, {"bent.matrixes.learn": False})


def test_an_argument_without_a_default_can_be_set() -> None:
    assert changed(base(), {"picky.count": 3}, "picky, sgd").parts[0].origin.settings["count"] == 3  # type: ignore[union-attr]
    with pytest.raises(UsageError, match=r"picky needs count: set picky\.count"):
        changed(base(), {}, "picky, sgd")


def test_frozen_is_learned_nowhere_and_starts_alike() -> None:
    plan = frozen(chain(bent(), *base().parts))
    theta = {"w": torch.zeros(3)}
    learned, fixed = plan.initial(theta, 2, torch.Generator().manual_seed(0))
    assert learned == {}
    before = chain(bent(), *base().parts).initial(theta, 2, torch.Generator().manual_seed(0))
    assert set(fixed) == {*before[0], *before[1]}
    assert all(torch.equal(fixed[name], leaf) for name, leaf in {**before[0], **before[1]}.items())
    assert all(entry["learned"] == [] for entry in plain(plan))
    again = changed(plan, {"momentum.nesterov": True, "sgd.lr.learn": True})
    assert [entry["learned"] for entry in plain(again)] == [[], [], [], ["lr"]]


@pytest.mark.parametrize(
    ("settings", "names", "said"),
    [
        ({"sdg.lr": 1}, None, "no part of the strategy named 'sdg': did you mean 'sgd'"),
        ({"sgd.rate": 1}, None, r"no option of sgd named 'rate'.* \(known: lr\)"),
        ({"sgd.lrr.per": "layer"}, None, "no option of sgd named 'lrr': did you mean 'lr'"),
        ({"sgd.name": "x"}, None, "no option of sgd named 'name'"),
        ({"sgd.lr.pre": "layer"}, None, "no field of sgd.lr named 'pre': did you mean 'per'"),
        (
            {"sgd.lr.per": "layr"},
            None,
            r"no choice of sgd.lr.per named 'layr': did you mean 'layer'\? \(known: all, element",
        ),
        ({"sgd.lr.per": 3}, None, r"sgd.lr.per must be one of all, layer, tensor, element, not 3"),
        (
            {"sgd.lr": "much"},
            None,
            "sgd.lr must be a number or a table of value, per, per_step, bounds, learn, not 'much'",
        ),
        ({"sgd.lr": True}, None, "sgd.lr must be a number"),
        ({"sgd.lr.value": [1, 2, 3]}, None, r"sgd.lr.value must be a number or a list of 2, not \[1, 2, 3\]"),
        ({"sgd.lr.per_step": "yes"}, None, "sgd.lr.per_step must be true or false, not 'yes'"),
        ({"sgd.lr.bounds": [0.05, None]}, None, r"sgd.lr: the start \(0.005, 0.1\) must lie strictly inside"),
        ({"sgd": 0.1}, None, "sgd is a whole part and takes no value: set one of its options: lr"),
        ({"momentum.nesterov": 1}, None, "momentum.nesterov must be true or false, not 1"),
        (
            {"momentum.nesterov.per": "layer"},
            None,
            "momentum.nesterov is not a number that can be learned and has no per",
        ),
        (
            {"l2.strength": 1},
            None,
            'the strategy is weight_decay, momentum, sgd and has no l2.* strategy="l2, weight_decay',
        ),
        ({"l22.strength": 1}, None, "no strategy named 'l22': did you mean 'l2'"),
        ({"picky.kind": {}, "picky.count": 1.5}, "picky", "picky.count must be a whole number, not 1.5"),
        ({}, "momentm, sgd", "no strategy named 'momentm': did you mean 'momentum'"),
        ({}, "sgd, sgd", "two parts of a strategy are named sgd"),
        ({}, "", "no strategy named ''"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_nearest(settings: dict[str, Any], names: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        changed(base(), settings, names)


def test_a_part_from_elsewhere_is_kept_but_not_changed() -> None:
    own = Rule("own", {"lr": Hyper(0.1)}, lambda d, state, theta, values, at: (d, state))
    plan = chain(own, sgd(0.1))
    assert changed(plan, {"sgd.lr": 0.2}).parts[0] is own
    assert changed(plan, {}, "sgd, own").parts[1] is own
    with pytest.raises(UsageError, match="own was not made by a function"):
        changed(plan, {"own.lr": 0.2})
