from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, func, nn

from rbml import Episodes
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, Unrolled
from rbml.strategy import Hyper, Rule, StepInfo, chain, clip_norm, clip_value, noise, sgd
from rbml.tree import Tree, tmap


def grads(scale: float = 1.0) -> Tree:
    source = torch.Generator().manual_seed(2)
    return {key: scale * torch.randn(3, 2, dtype=torch.float64, generator=source) for key in ("a.w", "b.w")}


def passed(rule: Rule, direction: Tree, at: StepInfo | None = None) -> Tree:
    """Return what the rule makes of a direction."""
    plan = chain(rule)
    learned, fixed = plan.initial(direction, 1, None)
    at = StepInfo(0) if at is None else at
    after, _ = plan.update(direction, {}, tmap(torch.zeros_like, direction), learned | fixed, at)
    return tmap(torch.neg, after)


def given_to_torch(direction: Tree) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(leaf)) for leaf in direction.values()]
    for parameter, leaf in zip(parameters, direction.values(), strict=True):
        parameter.grad = leaf.clone()
    return parameters


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 0.0])
@pytest.mark.parametrize("learned", [False, True])
def test_clipping_is_torchs(limit: float, scale: float, learned: bool) -> None:
    direction = grads(scale)
    number = Hyper(limit, per="tensor") if learned else limit
    by_norm, by_value = given_to_torch(direction), given_to_torch(direction)
    nn.utils.clip_grad_norm_(by_norm, limit)
    nn.utils.clip_grad_value_(by_value, limit)
    for rule, truth in ((clip_norm(number), by_norm), (clip_value(number), by_value)):
        for own, parameter in zip(passed(rule, direction).values(), truth, strict=True):
            assert parameter.grad is not None
            assert torch.allclose(own, parameter.grad, rtol=1e-13, atol=0)


def test_a_clipped_norm_does_not_depend_on_the_length_and_grows_with_the_limit() -> None:
    direction = grads(10.0)
    plan = chain(clip_norm(Hyper(1.0, per="tensor")))
    theta = tmap(torch.zeros_like, direction)
    phi = {"clip_norm.limit/a.w": torch.tensor(0.5).double(), "clip_norm.limit/b.w": torch.tensor(2.0).double()}
    length = torch.sqrt(sum((leaf**2).sum() for leaf in direction.values()))

    def run(phi: Tree, factor: Tensor) -> Tree:
        return plan.update(tmap(lambda d: factor * d, direction), {}, theta, phi, StepInfo(0))[0]

    one = torch.tensor(1.0, dtype=torch.float64)
    slopes = func.jacrev(run)(phi, one)
    for key, other in (("a.w", "b.w"), ("b.w", "a.w")):
        assert torch.allclose(slopes[key][f"clip_norm.limit/{key}"], -direction[key] / (length + 1e-6), rtol=1e-12)
        assert not slopes[key][f"clip_norm.limit/{other}"].any()
        assert func.jacrev(run, argnums=1)(phi, one)[key].abs().max() < 1e-6


def test_at_zero_the_direction_passes_with_slope_one() -> None:
    zero = tmap(torch.zeros_like, grads())
    for rule in (clip_norm(0.5), clip_value(0.5), clip_value(0.5, soft=True)):
        for slope in (func.jacrev, func.jacfwd):
            jacobian = slope(lambda d, rule=rule: passed(rule, {"w": d})["w"])(zero["a.w"].flatten())
            assert torch.equal(jacobian, torch.eye(6, dtype=torch.float64))


def test_the_soft_form_stays_inside_and_lets_a_little_through() -> None:
    direction = {"w": torch.tensor([-300.0, -1.0, 0.01, 2.0], dtype=torch.float64)}
    soft = passed(clip_value(0.5, soft=True), direction)["w"]
    assert torch.allclose(soft, 0.5 * torch.tanh(direction["w"] / 0.5), rtol=1e-14) and float(soft.abs().max()) <= 0.5
    slope = func.jacrev(lambda d: passed(clip_value(0.5, soft=True), {"w": d})["w"])(direction["w"])
    assert (slope.diagonal()[1:] > 0).all() and torch.isfinite(slope).all()


@pytest.mark.parametrize("decay", [0.0, 0.55, 2.0])
def test_noise_has_the_spread_it_says_at_every_step(decay: float) -> None:
    zero = {"w": torch.zeros(20_000, dtype=torch.float64)}
    for t in (0, 3, 40):
        added = passed(noise(0.3, decay), zero, StepInfo(t, 50, torch.tensor(11)))["w"]
        expected = 0.3 / (1 + t) ** (decay / 2)
        assert float(added.std()) == pytest.approx(expected, rel=0.02)
        assert abs(float(added.mean())) < 4 * expected / math.sqrt(20_000)


def test_noise_is_added_and_another_name_parameter_step_or_task_has_other_noise() -> None:
    direction = grads()
    at = StepInfo(2, 5, torch.tensor(11))
    first = passed(noise(0.3), direction, at)
    added = tmap(torch.sub, first, direction)
    pure = passed(noise(0.3), tmap(torch.zeros_like, direction), at)
    assert all(torch.allclose(added[key], pure[key], rtol=1e-12) for key in added)
    assert all(torch.equal(leaf, passed(noise(0.3), direction, at)[key]) for key, leaf in first.items())
    others = [
        passed(noise(0.3, name="other"), direction, at),
        passed(noise(0.3, 0.0), direction, at._replace(t=3)),
        passed(noise(0.3), direction, at._replace(key=torch.tensor(12))),
    ]
    for other in others:
        assert all(bool((other[key] != leaf).all()) for key, leaf in first.items())
    assert bool((pure["a.w"] != pure["b.w"]).all())
    assert noise().random and chain(noise(), sgd(0.1)).random and not chain(sgd(0.1)).random


def test_noise_may_be_learned_and_every_engine_sees_the_same(
    curves: Callable[..., Episodes], roughened: Callable[[nn.Module], nn.Module]
) -> None:
    net = roughened(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)))
    learner = assemble(net, chain(noise(Hyper(0.2), Hyper(0.5)), sgd(0.1)), 3, nn.functional.mse_loss)
    episodes, results = curves(), []
    for engine, chunk in ((Unrolled(), 32), (Adjoint(keep=1), 32), (Adjoint(keep=1), 1)):
        torch.manual_seed(3)
        learner.hypergradient = engine
        learner.run(replace(learner.execution, chunk=chunk))
        results.append(learner.meta_gradient(episodes).grads)
    for result in results[1:]:
        assert all(torch.allclose(result[key], truth, rtol=1e-10, atol=1e-14) for key, truth in results[0].items())
    assert all(float(results[0][f"phi.noise.{key}"]) != 0 for key in ("std", "decay"))

    def loss() -> float:
        torch.manual_seed(3)
        return float(learner.meta_gradient(episodes).loss)

    std = dict(learner.named_parameters())["phi.noise.std"]
    ends = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            std += step
        ends.append(loss())
    assert float(results[0]["phi.noise.std"]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", [clip_norm(), clip_value(), clip_value(soft=True), noise()])
def test_the_type_of_theta_is_kept(rule: Rule, dtype: torch.dtype) -> None:
    assert passed(rule, {"w": torch.ones(3, dtype=dtype)}, StepInfo(1, 2, torch.tensor(0)))["w"].dtype == dtype
