from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml import Episodes, Learner, models
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.strategy import Hyper, Scalar, StepInfo, Strategy, TermInputs, chain, metal, ml3, sgd
from rbml.tasks import generator
from rbml.tree import Tree

Pictures = Callable[..., Episodes]
Curves = Callable[..., Episodes]
Proved = Callable[..., Learner]


def theta() -> Tree:
    return {"b": torch.randn(3, dtype=torch.float64), "a.w": torch.randn(2, 3, dtype=torch.float64)}


def phi_of(plan: Strategy, steps: int = 2) -> Tree:
    learned, fixed = plan.initial(theta(), steps, generator(1))
    return {name: leaf + 0.2 * torch.randn_like(leaf) for name, leaf in learned.items()} | fixed


def scene(prediction: Tensor, y: Tensor, t: int = 0, weights: Tree | None = None) -> TermInputs:
    own = theta() if weights is None else weights
    loss = squares if y.is_floating_point() else F.cross_entropy
    return TermInputs(own, own, prediction, y, prediction, loss, StepInfo(t, 2))


def classes(count: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(6, count, dtype=torch.float64), torch.arange(6) % count


def squares(prediction: Tensor, y: Tensor) -> Tensor:
    """Return the mean square, not as ``F.mse_loss``: tracing that kills Python in PyTorch 2.13."""
    return ((prediction - y) ** 2).mean()


def modules(phi: Tree, part: str, *widths: int, end: nn.Module | None = None) -> nn.Module:
    """Return a network of phi as a module of PyTorch."""
    layers: list[nn.Module] = []
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        linear = nn.Linear(inputs, outputs).double()
        linear.load_state_dict({kind: phi[f"{part}/{layer}/{kind}"] for kind in ("weight", "bias")})
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1], *([end] if end else []))


def test_ml3_is_the_mean_over_classes_and_examples_of_a_network() -> None:
    plan = chain(ml3(hidden=(5, 4)), sgd(0.1))
    phi, (prediction, y) = phi_of(plan), classes()
    net = modules(phi, "ml3.net", 2, 5, 4, 1, end=nn.Softplus())
    values = []
    for row, label in zip(prediction.softmax(1), y, strict=True):
        for index, probability in enumerate(row):
            values.append(net(torch.stack([probability, (label == index).double()])))
    found = plan.objective(phi, scene(prediction, y))
    assert torch.allclose(found, torch.stack(values).mean(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 2)])
def test_ml3_of_numbers_takes_them_as_they_come(shape: tuple[int, ...]) -> None:
    plan = chain(ml3(hidden=(5,)), sgd(0.1))
    phi, prediction, y = phi_of(plan), *torch.randn(2, *shape, dtype=torch.float64)
    net = modules(phi, "ml3.net", 2, 5, 1, end=nn.Softplus())
    expected = net(torch.stack([prediction.flatten(), y.flatten()], 1)).mean()
    assert torch.allclose(plan.objective(phi, scene(prediction, y)), expected, rtol=1e-13)


def test_ml3_may_keep_some_of_the_plain_loss() -> None:
    prediction, y = classes()
    seen = scene(prediction, y)
    bare, half = (chain(ml3(hidden=(5,), plain=plain), sgd(0.1)) for plain in (0.0, 0.5))
    phi = phi_of(bare)
    more = half.objective(phi | {"ml3.plain": torch.tensor(0.5).double()}, seen) - bare.objective(phi, seen)
    assert torch.allclose(more, 0.5 * F.cross_entropy(prediction, y), rtol=1e-12)


def test_metal_written_out() -> None:
    """The authors' formulas, with the state, the deviation of ``torch.std`` and an explicit loop over examples."""
    plan = chain(metal(hidden=5), sgd(0.1))
    phi, (prediction, y), own = phi_of(plan, 2), classes(), theta()
    for t in (0, 1, 7):
        nets = {name.partition("nets/")[2]: leaf[min(t, 1)] for name, leaf in phi.items() if "nets" in name}
        state = torch.stack([F.cross_entropy(prediction, y), own["a.w"].mean(), own["b"].mean()])
        changes = modules(nets, "adapter", 3, 3, 8)((state - state.mean()) / state.std())
        names = ["loss/0/weight", "loss/0/bias", "loss/1/weight", "loss/1/bias"]
        adapted = {name: (1 + changes[i]) * nets[name] + changes[4 + i] for i, name in enumerate(names)}
        rows = []
        for row, label in zip(prediction, y, strict=True):
            rows += [torch.stack([*state, value, (label == c).double()]) for c, value in enumerate(row)]
        seen = torch.stack(rows)
        net = modules(adapted, "loss", 5, 5, 1)
        expected = state[0] + net((seen - seen.mean()) / seen.std()).mean()
        assert torch.allclose(plan.objective(phi, scene(prediction, y, t, own)), expected, rtol=1e-9)


def test_metal_starts_as_the_plain_loss(pictures: Pictures) -> None:
    module, episodes = models.MLP(4, 3, (5,)).double(), pictures(shape=(4,))
    plain, found = assemble(module, sgd(0.4), 3), assemble(module, chain(metal(), sgd(0.4)), 3)
    assert torch.allclose(found.evaluate(episodes).loss, plain.evaluate(episodes).loss, rtol=1e-13)


@pytest.mark.parametrize("term", [ml3(hidden=(5,)), metal(hidden=5)])
def test_renaming_the_classes_changes_nothing(term: object) -> None:
    plan = chain(term, sgd(0.1))  # type: ignore[arg-type]
    phi, (prediction, y), own = phi_of(plan), classes(), theta()
    order = torch.tensor([2, 0, 3, 1])
    renamed = prediction[:, order], order.argsort()[y]
    assert torch.allclose(
        plan.objective(phi, scene(*renamed, weights=own)), plan.objective(phi, scene(prediction, y, weights=own))
    )


@pytest.mark.parametrize("term", [ml3(hidden=(5,)), metal(hidden=5)])
def test_any_number_of_classes_and_every_place_of_a_picture(term: object) -> None:
    plan = chain(term, sgd(0.1))  # type: ignore[arg-type]
    phi = phi_of(plan)
    for prediction, y in (classes(2), classes(7), (torch.randn(2, 3, 4, 4).double(), torch.ones(2, 4, 4).long())):
        gradient = func.grad(lambda p, y=y: plan.objective(phi, scene(p, y)))(prediction)
        assert bool(torch.isfinite(gradient).all()) and float(gradient.norm()) > 0


@pytest.mark.parametrize("make", [lambda: ml3(hidden=(5, 0)), lambda: metal(hidden=0)])
def test_a_layer_without_width_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError, match="must be at least 1, not 0"):
        make()


def test_the_hypergradient_of_ml3(pictures: Pictures, proved: Proved) -> None:
    plan = chain(ml3(hidden=(4, 3), plain=Scalar(0.5, per_step=True)), sgd(Hyper(0.3)))
    learner = proved(plan, pictures(tasks=2, shape=(4,)))
    assert learner.evaluate(pictures(ways=5, shape=(4,)), ways=5).prediction.shape == (3, 15, 5)


def test_the_hypergradient_of_ml3_of_numbers(curves: Curves, proved: Proved) -> None:
    proved(chain(ml3(hidden=(4,)), sgd(Hyper(0.3))), curves(tasks=2), squares, dead=("ml3.plain",))


def test_the_hypergradient_of_metal(pictures: Pictures, proved: Proved) -> None:
    learner = proved(chain(metal(hidden=4), sgd(Hyper(0.3))), pictures(tasks=2, shape=(4,)))
    assert learner.evaluate(pictures(ways=5, shape=(4,)), ways=5).prediction.shape == (3, 15, 5)


def test_the_hypergradient_of_metal_of_numbers(curves: Curves, proved: Proved) -> None:
    proved(chain(metal(hidden=4), sgd(Hyper(0.3))), curves(tasks=2), squares)
