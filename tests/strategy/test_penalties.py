from __future__ import annotations

import pytest
import torch
from torch import func

from rbml.strategy import Hyper, chain, l2, sgd, weight_decay
from rbml.tree import Tree

BATCH = (torch.zeros(1), torch.zeros(1), torch.zeros(1))


def theta() -> Tree:
    return {"a": torch.randn(3, 2, dtype=torch.float64), "b": torch.randn(4, dtype=torch.float64)}


def test_l2_is_half_the_weighted_square() -> None:
    at = theta()
    plan = chain(l2(Hyper(1.0, per="tensor")), sgd(1.0))
    phi = {"l2.strength/a": torch.tensor(0.5).double(), "l2.strength/b": torch.tensor(3.0).double()}
    expected = 0.25 * (at["a"] ** 2).sum() + 1.5 * (at["b"] ** 2).sum()
    assert torch.allclose(torch.as_tensor(plan.term(at, at, phi, BATCH, 0)), expected, rtol=1e-14)


@pytest.mark.parametrize("per", ["all", "layer", "tensor", "element"])
def test_under_plain_sgd_it_equals_weight_decay(per: str) -> None:
    at, grads = theta(), theta()
    number = Hyper(0.3, per=per)
    term, rule = chain(l2(number), sgd(0.1)), chain(weight_decay(number), sgd(0.1))
    phi = {**term.initial(at, 1, None)[0], **term.initial(at, 1, None)[1]}
    pulled = func.grad(lambda p: torch.as_tensor(term.term(p, at, phi, BATCH, 0)))(at)
    by_term, _ = term.update({name: grads[name] + pulled[name] for name in at}, {}, at, phi, 0)
    by_rule, _ = rule.update(grads, {}, at, {**rule.initial(at, 1, None)[0], **rule.initial(at, 1, None)[1]}, 0)
    assert all(torch.allclose(by_term[name], by_rule[name], rtol=1e-13) for name in at)
