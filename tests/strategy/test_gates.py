from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rbml import Batch, Episode, Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, FirstOrder, Forward, Unrolled
from rbml.hypergrad.base import BlindError
from rbml.inner import roll
from rbml.strategy import Gate, Hyper, StepInfo, Values, chain, dropout, momentum, sgd, warp_pictures
from rbml.strategy.undo import split

THETA = {"head.weight": torch.ones(2, 4), "head.bias": torch.ones(2)}


def through(part: Gate, inputs: Tensor, key: int = 0, t: int = 0) -> Tensor:
    plan = chain(part, sgd(0.1))
    learned, fixed = plan.initial(THETA, 3, None)
    ((_, change),) = plan.gated(learned | fixed, THETA, StepInfo(t, 3, torch.tensor(key)))
    return change(inputs)


def test_it_drops_as_many_as_the_rate_says_and_keeps_the_mean() -> None:
    came = through(dropout(0.3, temperature=0.01), torch.ones(200, 200))
    assert abs(float((came < 0.5).float().mean()) - 0.3) < 0.01
    assert abs(float(came.mean()) - 1) < 0.01
    kept = came[came > 1.0]
    assert torch.allclose(kept.median(), torch.tensor(1 / 0.7), rtol=1e-4), "scaled as nn.Dropout does"


def test_a_rate_of_zero_drops_next_to_nothing() -> None:
    x = torch.randn(50, 50)
    assert torch.allclose(through(dropout(0.0), x), x, rtol=1e-4)


def test_what_is_dropped_depends_on_task_step_name_and_nothing_else() -> None:
    x = torch.ones(20, 20)
    first = through(dropout(0.5), x)
    assert torch.equal(first, through(dropout(0.5), x))
    for other in (
        through(dropout(0.5), x, key=1),
        through(dropout(0.5), x, t=1),
        through(dropout(0.5, name="again"), x),
    ):
        assert (first - other).abs().mean() > 0.1


def test_of_pictures_whole_maps_are_dropped() -> None:
    came = through(dropout(0.5), torch.ones(6, 8, 3, 5))
    assert torch.equal(came, came[:, :, :1, :1].expand_as(came))
    assert came[:, :, 0, 0].std() > 0.1


def net() -> nn.Module:
    torch.manual_seed(0)
    return models.MLP(16, 3, (6, 5), nn.Tanh).double()


def learner(part: Gate | None = None, engine: object = None, steps: int = 3) -> Learner:
    part = dropout(Hyper(0.3, per="layer", bounds=(0, 1)), layers="*") if part is None else part
    return assemble(net(), chain(part, momentum(0.9), sgd(0.5)), steps, hypergradient=engine)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", [Unrolled(), Adjoint(store="segments"), Adjoint(store="reverse"), Forward()])
def test_engines_agree_since_a_step_taken_twice_drops_the_same(
    engine: object, pictures: Callable[..., Episodes]
) -> None:
    episodes = pictures(tasks=2, shape=(16,), dtype=torch.float64)
    found = []
    for one in (Adjoint(keep=1), engine):
        torch.manual_seed(0)
        found.append(learner(engine=one).meta_gradient(episodes))
    assert any("dropout" in name and float(grad.abs()) > 1e-6 for name, grad in found[0].grads.items())
    for name, grad in found[0].grads.items():
        assert torch.allclose(grad, found[1].grads[name], rtol=1e-8, atol=1e-12), name


def test_the_derivative_by_the_rate_is_that_of_central_differences(pictures: Callable[..., Episodes]) -> None:
    episodes = pictures(tasks=2, shape=(16,), dtype=torch.float64)
    own = learner()

    def loss() -> Tensor:
        torch.manual_seed(0)
        return own.meta_gradient(episodes).loss

    torch.manual_seed(0)
    grads = own.meta_gradient(episodes).grads
    for name, parameter in own.phi.named_parameters():
        with torch.no_grad():
            parameter += 1e-5
            above = loss()
            parameter -= 2e-5
            below = loss()
            parameter += 1e-5
        assert torch.allclose(grads[f"phi.{name}"], (above - below) / 2e-5, rtol=1e-6), name


def test_queries_and_the_adapted_model_see_all_inputs() -> None:
    x, y = torch.randn(6, 16).double(), torch.arange(6) % 3
    own, without = learner(steps=0), assemble(net(), sgd(0.5), 0)
    assert torch.equal(own.adapt(x, y)(x), without.adapt(x, y)(x))
    inner = own.inner(Episode(Batch(x, y), Batch(x, y)), key=torch.tensor(0))
    carry = roll(inner, inner.start({}), {})
    plain = without.inner(Episode(Batch(x, y), Batch(x, y)))
    assert torch.equal(inner.outer(carry, {})[0], plain.outer(carry, {})[0])
    assert not torch.equal(inner.objective(carry.theta, {}, 0), plain.objective(carry.theta, {}, 0))


def test_several_gates_before_a_layer_are_passed_in_order() -> None:
    def plus(values: Values, inputs: Tensor, *, layer: str, at: StepInfo) -> Tensor:
        return inputs + 1

    def double(values: Values, inputs: Tensor, *, layer: str, at: StepInfo) -> Tensor:
        return inputs * 2

    gates = [Gate("plus", {}, "head", plus), Gate("double", {}, "head", double)]
    model = nn.Sequential()
    model.add_module("head", nn.Linear(2, 2, bias=False))
    nn.init.eye_(model.head.weight)
    seen: list[Tensor] = []

    def loss(prediction: Tensor, y: Tensor) -> Tensor:
        seen.append(prediction)
        return prediction.sum()

    x = torch.zeros(1, 2)
    inner = assemble(model, chain(*gates, sgd(0.1)), 1, loss).inner(Episode(Batch(x, x), Batch(x, x)))
    inner.objective(inner.start({}).theta, {}, 0)
    assert torch.equal(seen[0], torch.full((1, 2), 2.0))


def test_a_first_order_engine_is_blind_to_the_rate(pictures: Callable[..., Episodes]) -> None:
    with pytest.raises(BlindError, match="dropout"):
        learner(engine=FirstOrder()).meta_gradient(pictures(tasks=1, shape=(16,), dtype=torch.float64))


def test_a_chain_with_a_gate_can_be_undone() -> None:
    assert split(learner().strategy).rule.name == "momentum"


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UsageError, match=r"matches no layer .* there are .*head"):
        learner(dropout(0.1, layers="conv*"))
    with pytest.raises(UsageError, match="above 0"):
        dropout(0.1, temperature=0)
    with pytest.raises(UsageError, match="a layer has one rate"):
        through(dropout(Hyper(0.2, per="element")), torch.ones(3, 4))


def test_pictures_are_warped_by_a_draw_of_their_own_and_another_one_at_each_step() -> None:
    came = through(warp_pictures(1.0, "head"), torch.rand(1, 1, 6, 6).expand(2, 1, 6, 6))
    assert (came[0] - came[1]).abs().max() > 0.01
    later = through(warp_pictures(1.0, "head"), torch.ones(2, 1, 6, 6).triu(), t=1)
    assert (later - through(warp_pictures(1.0, "head"), torch.ones(2, 1, 6, 6).triu())).abs().max() > 0.01
    with pytest.raises(UsageError, match=r"inputs of head are \(3, 4\)"):
        through(warp_pictures(1.0, "head"), torch.ones(3, 4))
