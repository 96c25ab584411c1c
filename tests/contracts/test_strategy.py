"""What every part must pass, whatever its kind: a new member of ``strategy.ALL`` inherits all of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from tests.contracts.parts import MAKE, NAMES, PERS, REAL_ONLY, made, make, numbers, tree

from rbml import Batch, Episodes, models
from rbml.algorithms.options import assemble
from rbml.data.targets import REAL
from rbml.hypergrad import Adjoint, Unrolled
from rbml.strategy import Gate, Hyper, Rule, Start, Term, chain, sgd


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_does(name: str) -> None:
    text = str(inspect.getdoc(MAKE[name]))
    first = text.splitlines()[0]
    assert re.fullmatch(r"[A-Z].*\.", first), "one line, a sentence"
    assert ".. math::" in text and "Args:" in text
    for argument in inspect.signature(MAKE[name]).parameters:
        assert re.search(rf"^\s+(\w+, )*{argument}(, \w+)*: ", text, re.M), f"{argument} is not explained"
    part = make(name)
    assert part.name == name, "filed under the name in the table"
    assert part.origin is not None and part.origin.by == name, "made by @part"
    assert make(name, name="other").name == "other"


@pytest.mark.parametrize("name", [name for name in NAMES if numbers(name)])
def test_a_plain_number_is_fixed_and_a_hyper_says_for_itself(name: str) -> None:
    plain = make(name, **numbers(name))
    assert not any(isinstance(hyper, Hyper) and hyper.learn for hyper in plain.hypers.values())
    for argument, value in numbers(name).items():
        own = Hyper(value, per="layer")
        assert own in make(name, **{argument: own}).hypers.values()


@pytest.mark.parametrize(
    ("name", "per", "per_step"), list(product([n for n in NAMES if numbers(n)], PERS, (False, True)))
)
def test_phi_has_one_leaf_a_group_whatever_the_part(name: str, per: str, per_step: bool) -> None:
    part = made(name, per, per_step)
    learned, fixed = chain(part).initial(tree(), 3, torch.Generator())
    count = {"all": 1, "layer": 2, "tensor": 4, "element": 4}[per]
    for argument in (argument for argument, hyper in part.hypers.items() if isinstance(hyper, Hyper)):
        whole = f"{name}.{argument}"
        assert len([key for key in learned if key == whole or key.startswith(f"{whole}/")]) == count
    assert all(key.startswith(f"{name}.") for key in learned | fixed)
    assert all(leaf.dtype == torch.float64 for leaf in (learned | fixed).values())


@pytest.mark.parametrize("name", NAMES)
def test_every_leaf_of_phi_belongs_to_its_kind(name: str) -> None:
    """``Strategy.of`` decides what a first-order engine is blind to."""
    part = made(name)
    plan = chain(part, sgd(0.1, name="last"))
    learned, _ = plan.initial(tree(), 1, torch.Generator())
    for kind in (Rule, Term, Gate, Start):
        assert list(plan.of(learned, kind)) == (list(learned) if isinstance(part, kind) else [])


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_stays_single_in_every_engine(name: str, pictures: Callable[..., Episodes]) -> None:
    """PyTorch widens some 0-d numbers under forward over reverse; float64 tests cannot see it."""
    part = made(name, **({"count": 6} if "count" in inspect.signature(MAKE[name]).parameters else {}))
    plan = chain(part) if isinstance(part, Rule) and "lr" in part.hypers else chain(part, sgd(0.1, name="last"))
    net = models.MLP(16, 3, (4,), torch.nn.Tanh)
    episodes, options = pictures(tasks=2, shape=(16,), dtype=torch.float32), {}
    if name in REAL_ONLY:
        net.head = models.BayesianLinear(4, 1)  # type: ignore[assignment]
        episodes = Episodes(*(Batch(batch.x, batch.x[..., :1].tanh()) for batch in episodes))
        options = {"head": "head.rows.*", "loss": REAL.loss}
    engines = (Adjoint(keep=1), Unrolled())
    found = [assemble(net, plan, steps=2, hypergradient=engine, **options) for engine in engines]  # type: ignore[arg-type]
    torch.manual_seed(0)
    one = found[0].meta_gradient(episodes)
    torch.manual_seed(0)
    found[1].load_state_dict(found[0].state_dict())
    other = found[1].meta_gradient(episodes)
    assert all(grad.dtype == torch.float32 for grad in one.grads.values())
    for key, grad in one.grads.items():
        assert torch.allclose(grad, other.grads[key], rtol=2e-3, atol=1e-5), key
