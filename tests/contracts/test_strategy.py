"""What every rule, term, gate and start must pass: a new member of ``strategy.ALL`` inherits all of it.

A part is made with a :class:`Hyper` for every argument that may be one, around its default, and is then treated as a
pure function of tensors. What a part cannot be held to is said in the tables at the top, with the reason.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, func
from torch.fx.experimental.proxy_tensor import make_fx

from rbml import Batch, Episodes, models, strategy
from rbml.algorithms.options import assemble
from rbml.data.targets import REAL
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled
from rbml.strategy import (
    Features,
    Gate,
    Hyper,
    Part,
    Rule,
    Scalar,
    Start,
    StepInfo,
    Strategy,
    Term,
    TermInputs,
    Weights,
    chain,
    sgd,
)
from rbml.tree import Tree

MAKE: dict[str, Callable[..., Part]] = dict(strategy.ALL)
PERS = ("all", "layer", "tensor", "element")

FIXED_WAYS: dict[str, str] = {
    "low_rank": "dict(rank=2)",
    "learned_optimizer": "dict(hidden=(2,), decays=(0.9,))",
    "learned_lstm": "dict(hidden=2)",
    "ml3": "dict(hidden=(3, 2))",
    "metal": "dict(hidden=3)",
    "example_weights": "dict(count=5)",
    "weight_net": "dict(hidden=(3,))",
}
"""Arguments that a test must give, or that keep it fast, as Python: ``{"rule": "dict(rank=2)"}``."""


REAL_ONLY = {"bayesian_linear"}
"""Starts that make no head for classes."""


def make(name: str, /, **options: object) -> Part:
    """Return the part as it is by default, but for the arguments above."""
    return MAKE[name](**{**eval(FIXED_WAYS.get(name, "{}")), **options})


NAMES = sorted(MAKE)
RULES = [name for name in NAMES if isinstance(make(name), Rule)]
TERMS = [name for name in NAMES if isinstance(make(name), Term)]
GATES = [name for name in NAMES if isinstance(make(name), Gate)]
STARTS = [name for name in NAMES if isinstance(make(name), Start)]


def tree(seed: int = 0) -> Tree:
    source = torch.Generator().manual_seed(seed)
    shapes = {"body.0.weight": (4, 3), "body.0.bias": (4,), "head.weight": (2, 4), "head.bias": (2,)}
    return {name: torch.randn(shape, dtype=torch.float64, generator=source) for name, shape in shapes.items()}


def numbers(name: str, kind: str = "Hyper") -> dict[str, float]:
    """Return the arguments that may be a Hyper (or a Scalar), with the value that they have without one."""
    options = eval(FIXED_WAYS.get(name, "{}"))
    parameters = inspect.signature(MAKE[name]).parameters.values()
    found = {}
    for parameter in parameters:
        if kind in str(parameter.annotation) and parameter.name not in options:
            default = parameter.default
            found[parameter.name] = float(getattr(default, "value", default))
    return found


def granular(names: list[str]) -> list[tuple[str, str]]:
    """Return every name with every granularity that its numbers can have; with one beside a network, to save time."""
    pers = {name: PERS[1:2] if has_network(name) else PERS if numbers(name) else PERS[:1] for name in names}
    return [(name, per) for name in names for per in pers[name]]


def has_network(name: str) -> bool:
    """Return whether a part has so many numbers that gradcheck shall compare random directions, not every entry."""
    return any(isinstance(quantity, Weights) for quantity in make(name).hypers.values())


def made(name: str, per: str = "all", per_step: bool = False, **options: object) -> Part:
    """Return the part with every number learned, at its default."""
    given = {argument: Hyper(value, per=per, per_step=per_step) for argument, value in numbers(name).items()}  # type: ignore[arg-type]
    given |= {argument: Scalar(value, per_step=per_step) for argument, value in numbers(name, "Scalar").items()}
    return make(name, **given, **options)


def phi_of(plan: Strategy, steps: int = 3) -> Tree:
    """Return phi a little beside its start, so that nothing is zero or the same by chance."""
    source = torch.Generator().manual_seed(1)
    learned, fixed = plan.initial(tree(), steps, source)
    noise = {key: torch.rand(leaf.shape, dtype=leaf.dtype, generator=source) for key, leaf in learned.items()}
    beside = {key: torch.where(leaf == 0, 0.01, leaf * -0.1) * noise[key] for key, leaf in learned.items()}  # same sign
    return {key: leaf + beside[key] for key, leaf in learned.items()} | fixed


def moment(t: int = 0, key: Tensor | None = None) -> StepInfo:
    return StepInfo(t, 3, torch.tensor(7) if key is None else key)


def scene(theta: Tree, theta0: Tree, prediction: Tensor, at: StepInfo) -> TermInputs:
    source = torch.Generator().manual_seed(3)
    x = torch.randn(5, 3, dtype=torch.float64, generator=source)
    return TermInputs(theta, theta0, x, torch.arange(5) % 2, prediction, torch.nn.functional.cross_entropy, at)


def unpacked(flat: tuple[Tensor, ...], like: tuple[Tree, ...]) -> list[Tree]:
    rest = list(flat)
    return [{key: rest.pop(0) for key in one} for one in like]


def leaves(*trees: Tree) -> tuple[Tensor, ...]:
    return tuple(leaf.clone().requires_grad_() for one in trees for leaf in one.values())


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
    if (name, real) in {("prototype", True), *((one, False) for one in REAL_ONLY)}:
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
    engines = (Adjoint(), Unrolled())
    found = [assemble(net, plan, steps=2, hypergradient=engine, **options) for engine in engines]  # type: ignore[arg-type]
    torch.manual_seed(0)
    one = found[0].meta_gradient(episodes)
    torch.manual_seed(0)
    found[1].load_state_dict(found[0].state_dict())
    other = found[1].meta_gradient(episodes)
    assert all(grad.dtype == torch.float32 for grad in one.grads.values())
    for key, grad in one.grads.items():
        assert torch.allclose(grad, other.grads[key], rtol=2e-3, atol=1e-5), key
