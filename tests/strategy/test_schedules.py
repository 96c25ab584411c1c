from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from rbml import Episodes, Learner
from rbml.errors import UsageError
from rbml.strategy import (
    Hyper,
    Rule,
    StepInfo,
    chain,
    clip_norm,
    clip_value,
    cosine,
    exponential,
    inverse_time,
    momentum,
    piecewise,
    polynomial,
    sgd,
    warmup,
)

T = 10
Scheduler = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]

SCHEDULES: dict[str, tuple[Rule, Scheduler]] = {
    "cosine": (cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, T)),
    "cosine to a floor": (cosine(Hyper(0.2)), lambda o: lr_scheduler.CosineAnnealingLR(o, T, eta_min=0.2 * 0.5)),
    "line": (polynomial(), lambda o: lr_scheduler.PolynomialLR(o, T)),
    "power": (polynomial(Hyper(2.5)), lambda o: lr_scheduler.PolynomialLR(o, T, 2.5)),
    "line to a floor": (polynomial(1, Hyper(0.3)), lambda o: lr_scheduler.LinearLR(o, 1, 0.3, T)),
    "exponential": (exponential(Hyper(0.8)), lambda o: lr_scheduler.ExponentialLR(o, 0.8)),
    "steps": (exponential(0.5, every=3), lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
    "warmup": (warmup(4, Hyper(0.25)), lambda o: lr_scheduler.LinearLR(o, 0.25, 1, 4)),
    "piecewise": (piecewise((1.0, 0.1, 0.01), (3, 7)), lambda o: lr_scheduler.MultiStepLR(o, [3, 7], 0.1)),
    "piecewise, learned": (piecewise((1, 0.5), (4,), learn=True), lambda o: lr_scheduler.MultiStepLR(o, [4], 0.5)),
    "inverse time": (inverse_time(Hyper(0.3)), lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + 0.3 * t))),
}


def factor(rule: Rule, t: int, steps: int = T) -> Tensor:
    """Return what the rule makes of a direction of ones."""
    theta = {"w": torch.zeros(2, dtype=torch.float64)}
    plan = chain(rule)
    learned, fixed = plan.initial(theta, steps, None)
    after, state = plan.update({"w": torch.ones_like(theta["w"])}, {}, theta, learned | fixed, StepInfo(t, steps))
    assert state == {}
    return -after["w"]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_factor_is_that_of_torchs_scheduler(name: str) -> None:
    rule, scheduler_of = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.5)
    scheduler = scheduler_of(optimizer)
    for t in range(T + 1):
        assert factor(rule, t).tolist() == pytest.approx([optimizer.param_groups[0]["lr"] / 0.5] * 2, rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_whole_run_is_that_of_torch(name: str) -> None:
    rule, scheduler_of = SCHEDULES[name]
    start = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    plan = chain(momentum(0.9), sgd(0.5), rule)
    theta = {"w": start}
    learned, fixed = plan.initial(theta, T, None)
    state = plan.init(theta)
    w = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([w], 0.5, momentum=0.9)
    scheduler = scheduler_of(optimizer)
    for t in range(T):
        theta, state = plan.update({"w": torch.sin(theta["w"])}, state, theta, learned | fixed, StepInfo(t, T))
        w.grad = torch.sin(w.detach())
        optimizer.step()
        scheduler.step()
        assert torch.allclose(theta["w"], w, rtol=1e-11)


@pytest.mark.parametrize(
    ("rule", "end"),
    [(cosine(0.2), 0.2), (polynomial(2.0), 0.0), (polynomial(0.5, 0.4), 0.4), (piecewise((1, 0.5, 0.3)), 0.3)],
)
def test_it_stays_where_it_ended_and_works_without_steps(rule: Rule, end: float) -> None:
    assert [float(factor(rule, t)[0]) for t in (T, T + 1, 100)] == pytest.approx([end] * 3, abs=1e-15)
    assert torch.isfinite(factor(rule, 0, 0)).all()


def test_stretches_are_equal_by_default() -> None:
    assert [float(factor(piecewise((4, 2, 1)), t, 6)[0]) for t in range(8)] == [4, 4, 2, 2, 1, 1, 1, 1]
    assert [float(factor(piecewise((3,)), t)[0]) for t in (0, 50)] == [3, 3]
    many = [float(factor(piecewise((1, 2, 3, 4)), t, 2)[0]) for t in range(3)]
    assert many == [1, 3, 4]


def test_each_learned_value_has_the_derivative_of_its_own_steps() -> None:
    theta = {"w": torch.zeros(3, dtype=torch.float64)}
    plan = chain(sgd(0.5), piecewise((1.0, 0.1, 0.01), (2, 6), learn=True))
    learned, fixed = plan.initial(theta, 7, None)
    assert list(learned) == ["piecewise.values/factors"]

    def run(phi: dict[str, Tensor]) -> Tensor:
        now = theta
        for t in range(7):
            now, _ = plan.update({"w": torch.ones_like(now["w"])}, {}, now, phi | fixed, StepInfo(t, 7))
        return now["w"].sum()

    assert torch.func.grad(run)(learned)["piecewise.values/factors"].tolist() == [-3.0, -6.0, -1.5]


def test_layers_may_fall_to_floors_of_their_own() -> None:
    theta = {"a.w": torch.zeros(1), "b.w": torch.zeros(1)}
    plan = chain(cosine(Hyper(0.0, per="layer")))
    phi = {"cosine.floor/a.*": torch.tensor(0.25), "cosine.floor/b.*": torch.tensor(0.75)}
    after, _ = plan.update({key: torch.ones(1) for key in theta}, {}, theta, phi, StepInfo(4, 4))
    assert [float(-leaf) for leaf in after.values()] == [0.25, 0.75]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_type_of_theta_is_kept(name: str, dtype: torch.dtype) -> None:
    plan, theta = chain(SCHEDULES[name][0]), {"w": torch.ones(3, dtype=dtype)}
    learned, fixed = plan.initial(theta, T, None)
    after, _ = plan.update(theta, {}, theta, learned | fixed, StepInfo(2, T))
    assert after["w"].dtype == dtype


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: piecewise(()), "needs at least one value"),
        (lambda: piecewise((1, 2), (3, 4)), r"2 values need 1 increasing boundaries between them, not \(3, 4\)"),
        (lambda: piecewise((1, 2, 3), (4, 4)), "increasing"),
        (lambda: piecewise((1, 2, 3), (4, 3)), "increasing"),
        (lambda: warmup(0), "at least 1 step, not 0"),
        (lambda: exponential(0.5, every=0), "at least 1, not 0"),
    ],
)
def test_wrong_use_is_refused(make: Callable[[], Rule], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        make()


def test_schedules_are_learned_through_a_whole_inner_loop(
    proved: Callable[..., Learner], curves: Callable[..., Episodes]
) -> None:
    falling = [cosine(Hyper(0.3, per="layer")), polynomial(Hyper(1.5), Hyper(0.2)), exponential(Hyper(0.8))]
    others = [inverse_time(Hyper(0.4)), warmup(2, Hyper(0.5)), piecewise((1.0, 0.5), learn=True)]
    limits = [clip_value(Hyper(0.7), soft=True), clip_norm(Hyper(0.5, bounds=(0, None)))]
    proved(chain(*limits, momentum(0.5), sgd(0.6), *falling, *others), curves(), squared)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target) ** 2).mean()
