from __future__ import annotations

import pytest
import torch
from torch import func

from rbml.strategy import Hyper, Moment, Scene, chain, l2, sgd, weight_decay
from rbml.tree import Tree


def scene(theta: Tree) -> Scene:
    zero = torch.zeros(1)
    return Scene(theta, theta, zero, zero, zero, lambda prediction, y: torch.zeros(()), Moment(0))


def theta() -> Tree:
    return {"a": torch.randn(3, 2, dtype=torch.float64), "b": torch.randn(4, dtype=torch.float64)}


def test_l2_is_half_the_weighted_square() -> None:
    at = theta()
    plan = chain(l2(Hyper(1.0, per="tensor")), sgd(1.0))
    phi = {"l2.strength/a": torch.tensor(0.5).double(), "l2.strength/b": torch.tensor(3.0).double()}
    expected = 0.25 * (at["a"] ** 2).sum() + 1.5 * (at["b"] ** 2).sum()
    assert torch.allclose(plan.objective(phi, scene(at)), expected, rtol=1e-14)


@pytest.mark.parametrize("per", ["all", "layer", "tensor", "element"])
def test_under_plain_sgd_it_equals_weight_decay(per: str) -> None:
    at, grads = theta(), theta()
    number = Hyper(0.3, per=per)
    term, rule = chain(l2(number), sgd(0.1)), chain(weight_decay(number), sgd(0.1))
    phi = {**term.initial(at, 1, None)[0], **term.initial(at, 1, None)[1]}
    pulled = func.grad(lambda p: term.objective(phi, scene(p)))(at)
    by_term, _ = term.update({name: grads[name] + pulled[name] for name in at}, {}, at, phi, Moment(0))
    by_rule, _ = rule.update(grads, {}, at, {**rule.initial(at, 1, None)[0], **rule.initial(at, 1, None)[1]}, Moment(0))
    assert all(torch.allclose(by_term[name], by_rule[name], rtol=1e-13) for name in at)
