from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, func, nn

from rbml import Batch, Episode, Episodes, Learner
from rbml.algorithms.options import assemble
from rbml.errors import UsageError
from rbml.inner import roll
from rbml.strategy import (
    Hyper,
    Scalar,
    StepInfo,
    Term,
    TermInputs,
    chain,
    confidence,
    l1,
    l2,
    label_smoothing,
    proximal,
    sgd,
    tempered,
    weight_decay,
)
from rbml.tree import Tree


def scene(
    theta: Tree, prediction: Tensor | None = None, y: Tensor | None = None, theta0: Tree | None = None
) -> TermInputs:
    zero = torch.zeros(1)
    seen = zero if prediction is None else prediction
    loss = (lambda prediction, y: torch.zeros(())) if prediction is None else F.cross_entropy
    at = StepInfo(0)
    return TermInputs(theta, theta if theta0 is None else theta0, zero, zero if y is None else y, seen, loss, at)


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
    by_term, _ = term.update({name: grads[name] + pulled[name] for name in at}, {}, at, phi, StepInfo(0))
    by_rule, _ = rule.update(
        grads, {}, at, {**rule.initial(at, 1, None)[0], **rule.initial(at, 1, None)[1]}, StepInfo(0)
    )
    assert all(torch.allclose(by_term[name], by_rule[name], rtol=1e-13) for name in at)


def value(term: Term, at: TermInputs) -> Tensor:
    plan = chain(term)
    learned, fixed = plan.initial(at.theta, 1, None)
    return plan.objective(learned | fixed, at)


def test_l1_is_the_weighted_sum_of_sizes_and_flat_at_zero() -> None:
    at = theta() | {"c": torch.zeros(2, dtype=torch.float64)}
    plan = chain(l1(Hyper(1.0, per="tensor")))
    phi = {f"l1.strength/{key}": torch.tensor(k).double() for key, k in (("a", 0.5), ("b", 3.0), ("c", 2.0))}
    expected = 0.5 * at["a"].abs().sum() + 3.0 * at["b"].abs().sum()
    assert torch.allclose(plan.objective(phi, scene(at)), expected, rtol=1e-14)
    slopes = func.grad(lambda p: plan.objective(phi, scene(p)))(at)
    for key, leaf in at.items():
        assert torch.equal(slopes[key], phi[f"l1.strength/{key}"] * torch.sign(leaf))


def test_the_proximal_term_pulls_back_and_theta0_the_other_way() -> None:
    at, start = theta(), theta()
    plan = chain(proximal(Hyper(0.7, per="tensor")))
    phi, _ = plan.initial(at, 1, None)

    def run(theta: Tree, theta0: Tree) -> Tensor:
        return plan.objective(phi, scene(theta, theta0=theta0))

    assert torch.allclose(run(at, start), sum(0.35 * ((at[k] - start[k]) ** 2).sum() for k in at), rtol=1e-14)
    forth, back = func.grad(run, argnums=(0, 1))(at, start)
    for key, leaf in at.items():
        assert torch.allclose(forth[key], 0.7 * (leaf - start[key]), rtol=1e-13)
        assert torch.equal(back[key], -forth[key])
    assert float(run(start, start)) == 0


def test_the_proximal_term_holds_an_inner_loop_at_its_closed_form() -> None:
    """For a quadratic loss the inner minimum is (A + strength I)^-1 (b + strength theta0)."""
    x, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 1, dtype=torch.float64)
    net = nn.Linear(3, 1, bias=False).double()
    learner = assemble(net, chain(proximal(0.5), sgd(0.3)), 400, lambda p, y: 0.5 * ((p - y) ** 2).mean())
    inner = learner.inner(Episode(Batch(x, y), Batch(x, y)))
    found = roll(inner, inner.start({}), {}).theta["weight"]
    matrix = x.T @ x / 8 + 0.5 * torch.eye(3, dtype=torch.float64)
    truth = torch.linalg.solve(matrix, x.T @ y / 8 + 0.5 * net.weight.T.detach())
    assert torch.allclose(found, truth.T, rtol=1e-10)


TARGETS = {
    "labels": ((6, 4), lambda: torch.arange(6) % 4),
    "probabilities": ((6, 4), lambda: torch.rand(6, 4, dtype=torch.float64).softmax(1)),
    "labels of pixels": ((6, 4, 2, 3), lambda: torch.randint(4, (6, 2, 3))),
}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", TARGETS)
def test_label_smoothing_is_torchs_and_so_is_its_derivative(kind: str, rate: float) -> None:
    shape, draw = TARGETS[kind]
    prediction, y = torch.randn(shape, dtype=torch.float64), draw()
    number = rate if rate in (0.0, 1.0) else Scalar(rate, bounds=(0, 1))

    def own(prediction: Tensor) -> Tensor:
        return value(label_smoothing(number), scene(theta(), prediction, y))

    def theirs(prediction: Tensor) -> Tensor:
        return F.cross_entropy(prediction, y, label_smoothing=rate)

    assert torch.allclose(own(prediction), theirs(prediction), rtol=1e-13)
    assert torch.allclose(func.grad(own)(prediction), func.grad(theirs)(prediction), rtol=1e-12, atol=1e-16)


def test_a_learner_with_smoothed_labels_learns_tasks_as_with_that_loss(
    pictures: Callable[..., Episodes], roughened: Callable[[nn.Module], nn.Module]
) -> None:
    net = roughened(nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    episodes = pictures(shape=(4,))
    term = assemble(net, chain(label_smoothing(0.2), sgd(0.3)), 3)
    loss = assemble(net, sgd(0.3), 3, lambda p, y: F.cross_entropy(p, y, label_smoothing=0.2))
    assert torch.allclose(term.evaluate(episodes).prediction, loss.evaluate(episodes).prediction, rtol=1e-12)


def test_a_smoothing_and_a_penalty_are_learned(
    proved: Callable[..., Learner], pictures: Callable[..., Episodes]
) -> None:
    terms = [label_smoothing(Scalar(0.2, bounds=(0, 1))), confidence(Scalar(0.3, per_step=True))]
    more = [l1(Hyper(0.02, per="layer")), proximal(Hyper(0.3, per="element"))]
    proved(chain(*terms, *more, sgd(0.4)), pictures(shape=(4,)))


def test_tempered_predictions_are_those_of_the_support_alone(
    proved: Callable[..., Learner], pictures: Callable[..., Episodes]
) -> None:
    prediction, y = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4
    expected = F.cross_entropy(0.3 * prediction, y)
    assert torch.allclose(value(tempered(0.3), scene(theta(), prediction, y)), expected, rtol=1e-13)
    proved(chain(tempered(Scalar(0.3, bounds=(0, 1))), sgd(Hyper(0.4))), pictures(shape=(4,)))
    absent = prediction.clone()
    absent[:, 3] = torch.finfo(torch.float64).min / 4
    inputs = scene(theta(), absent, y % 3)._replace(mask={"class": torch.arange(4) < 3})
    assert torch.allclose(value(tempered(9.0), inputs), F.cross_entropy(9 * prediction[:, :3], y % 3), rtol=1e-13)


def test_confidence_is_the_negative_entropy() -> None:
    prediction = 3 * torch.randn(6, 4, dtype=torch.float64)
    y = torch.arange(6) % 4
    entropy = torch.distributions.Categorical(logits=prediction).entropy().mean()
    expected = F.cross_entropy(prediction, y) - 0.3 * entropy
    assert torch.allclose(value(confidence(0.3), scene(theta(), prediction, y)), expected, rtol=1e-13)


@pytest.mark.parametrize("term", [label_smoothing(), confidence()])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_predictions_that_are_no_classes_are_refused(term: Term, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=rf"{term.name} needs class scores \(n, C, ...\), but the model predicts"):
        value(term, scene(theta(), torch.zeros(shape), torch.zeros(shape)))
