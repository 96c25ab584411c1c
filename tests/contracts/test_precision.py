"""Models in bfloat16: phi and the state of rules are in single precision, where 0.999 is not one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from rbml import Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient, Unrolled
from rbml.strategy import Hyper, Strategy, adagrad, adam, chain, momentum, nadam, rmsprop, sgd
from rbml.tree import norm

STRATEGIES = {
    "adam": chain(adam(beta2=Hyper(0.999, bounds=(0, 1)), eps=0.1), sgd(Hyper(0.01))),
    "amsgrad": chain(adam(amsgrad=True, eps=0.1), sgd(Hyper(0.01))),
    "nadam": chain(nadam(eps=0.1), sgd(Hyper(0.01))),
    "rmsprop": chain(rmsprop(eps=0.1), momentum(0.9), sgd(Hyper(0.01))),
    "adagrad": chain(adagrad(eps=0.1), sgd(Hyper(0.01))),
}


def made(strategy: Strategy, dtype: torch.dtype, engine: Hypergradient) -> Learner:
    model = models.MLP(4, 3, (6,), nn.Tanh)
    model.load_state_dict({name: leaf.bfloat16() for name, leaf in model.state_dict().items()})  # the same numbers
    return assemble(model.to(dtype), strategy, steps=4, hypergradient=engine)


@pytest.mark.parametrize("engine", [Adjoint(keep=1), Unrolled(), FirstOrder()], ids=repr)
@pytest.mark.parametrize("name", STRATEGIES)
def test_half_precision_is_close_to_single(name: str, engine: Hypergradient, pictures: Callable[..., Episodes]) -> None:
    tasks = pictures(shape=(4,), dtype=torch.bfloat16)
    torch.manual_seed(1)
    half = made(STRATEGIES[name], torch.bfloat16, engine)
    torch.manual_seed(1)
    single = made(STRATEGIES[name], torch.float32, engine)
    assert all(leaf.dtype == torch.float32 for leaf in [*half.phi.parameters(), *half.phi.buffers()])
    ours, theirs = half.meta_gradient(tasks), single.meta_gradient(tasks.to(torch.float32))
    assert all(leaf.isfinite().all() for leaf in ours.grads.values())
    assert float(ours.loss) == pytest.approx(float(theirs.loss), rel=0.02)
    for part in ("model.", "phi."):
        mine, truth = ({k: g.float() for k, g in r.grads.items() if k.startswith(part)} for r in (ours, theirs))
        apart = float(norm({key: mine[key] - leaf for key, leaf in truth.items()}))
        assert apart < 0.03 * float(norm(truth)), part


def test_numbers_close_to_one_stay_below_it() -> None:
    learner = made(STRATEGIES["adam"], torch.bfloat16, Adjoint(keep=1))
    assert float(learner.phi.get_parameter("adam.beta2").detach().sigmoid()) == pytest.approx(0.999, abs=1e-6)


def test_adam_as_the_paper_has_it_is_finite(pictures: Callable[..., Episodes]) -> None:
    """Its hypergradient has slopes of up to 1 / eps, so that only the loss can be close."""
    tasks = pictures(shape=(4,), dtype=torch.bfloat16)
    losses = []
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(1)
        found = made(chain(adam(), sgd(0.01)), dtype, Adjoint(keep=1)).meta_gradient(tasks.to(dtype))
        assert all(leaf.isfinite().all() for leaf in found.grads.values())
        losses.append(float(found.loss))
    assert losses[0] == pytest.approx(losses[1], rel=0.03)
