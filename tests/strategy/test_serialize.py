"""Every part of the table goes through JSON and comes back the same, and is said in words."""

from __future__ import annotations

import inspect
import json
import pickle
from typing import Any, get_type_hints

import pytest
import torch

from rbml import strategy
from rbml.errors import UsageError
from rbml.strategy import Hyper, Rule, Scalar, chain, l2, momentum, sgd, weight_decay
from rbml.strategy.parsing import alternatives
from rbml.strategy.serialize import described, from_plain, plain
from rbml.strategy.settings import frozen

THETA = {"body.0.weight": torch.randn(4, 3), "body.0.bias": torch.randn(4), "head.weight": torch.randn(2, 4)}
REQUIRED = {"count": 5}


def learned(name: str) -> Any:
    """Return the part with every number learned."""
    maker = dict(strategy.ALL)[name]
    hints = get_type_hints(maker)
    given: dict[str, Any] = {}
    for option in inspect.signature(maker).parameters.values():
        value = getattr(option.default, "value", option.default)
        if Hyper in alternatives(hints[option.name]):
            given[option.name] = Hyper(value, per="layer", per_step=True)
        elif Scalar in alternatives(hints[option.name]):
            given[option.name] = Scalar(value, per_step=True)
        elif option.default is inspect.Parameter.empty:
            given[option.name] = REQUIRED[option.name]
    return maker(**given, name="other")


@pytest.mark.parametrize("name", strategy.ALL)
def test_every_part_goes_through_json(name: str) -> None:
    for plan in (chain(learned(name)), frozen(chain(learned(name)))):
        back = from_plain(json.loads(json.dumps(plain(plan))))
        assert plain(back) == plain(plan)
        for ours, theirs in zip(plan.initial(THETA, 2, generator()), back.initial(THETA, 2, generator()), strict=True):
            assert list(ours) == list(theirs)
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert described(back) == described(plan)


@pytest.mark.parametrize("name", strategy.ALL)
def test_every_part_is_pickled(name: str) -> None:
    """Its functions cannot be written down; it is made again, with what was frozen still frozen."""
    for plan in (chain(learned(name)), frozen(chain(learned(name)))):
        back = pickle.loads(pickle.dumps(plan))
        assert plain(back) == plain(plan)
        for ours, theirs in zip(plan.initial(THETA, 2, generator()), back.initial(THETA, 2, generator()), strict=True):
            assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_part_of_ones_own_says_how_it_can_be_pickled() -> None:
    own = Rule("own", {"lr": Hyper(0.1)}, lambda d, state, theta, values, at: (d, state))
    with pytest.raises(pickle.PicklingError, match="own of the strategy was not made by a function with @rbml"):
        pickle.dumps(chain(own))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


def test_a_strategy_in_words() -> None:
    plan = chain(
        weight_decay(1e-4, name="late"),
        l2(Hyper(1e-3, per="tensor")),
        momentum(0.5, nesterov=True),
        sgd(Hyper((0.1, 1), per_step=True)),
    )
    assert described(plan) == (
        "late=weight_decay(rate 0.0001), l2(strength 0.001 learned per tensor), "
        "momentum(decay 0.5, nesterov), sgd(lr 0.1 to 1 learned each step)"
    )


def test_what_cannot_be_written_down_is_named() -> None:
    own = Rule("own", {"lr": Hyper(0.1)}, lambda d, state, theta, values, at: (d, state))
    assert described(chain(own)) == "own()"
    with pytest.raises(UsageError, match="the part own was not made by a function"):
        plain(chain(own))


def test_plain_values_of_an_unknown_part_are_refused() -> None:
    with pytest.raises(UsageError, match="no strategy named 'sgdd': did you mean 'sgd'"):
        from_plain([{"by": "sgdd", "settings": {}, "learned": []}])
    with pytest.raises(UsageError, match="no option of sgd named 'lrr'"):
        from_plain([{"by": "sgd", "settings": {"lrr": 1}, "learned": []}])
