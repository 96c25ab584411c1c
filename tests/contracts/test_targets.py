"""What every target kind must do: metrics that honour masks, checks that refuse, baselines that need no learner."""

from __future__ import annotations

import json
import pickle
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, func

from rbml.data import targets
from rbml.data.batch import Batch
from rbml.data.targets import CLASSES, REAL, Target, real
from rbml.errors import DataError, UsageError
from rbml.tasks import Episode, generator, stack
from rbml.tasks.base import one


class Case(NamedTuple):
    """A target, targets of one task of two sizes, predictions for them, and what to refuse."""

    target: Target
    y: tuple[Tensor, Tensor]
    outputs: int
    wrong: list[tuple[Tensor, Tensor]]
    raw: list[object]
    bad: list[object]
    names: list[str]


NAMES = ["a", "b", "c"]
labels = torch.tensor([0, 1, 2, 0, 1, 2])
values = torch.randn(6, 2, generator=generator(5), dtype=torch.float64)
CASES = {
    "classes": Case(
        CLASSES,
        (labels, labels[[0, 1, 3, 4]]),
        3,
        [
            (torch.zeros(6, 2), labels),  # a label out of range
            (torch.zeros(6, 3), labels.float()),
            (torch.zeros(6, 3), labels.int()),
            (torch.zeros(6), labels),
            (torch.zeros(5, 3), labels),
            (torch.zeros(6, 3), labels - 1),
        ],
        ["b", "a", "b"],
        ["a", "z"],
        ["a", "b"],
    ),
    "real": Case(
        REAL,
        (values, values[:4]),
        2,
        [
            (torch.zeros(6), values),
            (torch.zeros(6, 1), values),
            (torch.zeros(6, 2), torch.zeros(6, 2).long()),
        ],
        [[1.5, 2.0], [0.0, -1.0]],
        [["x", 1.0]],
        ["first", "second"],
    ),
}
CASES["real, scaled"] = CASES["real"]._replace(target=real([30.0, -2.0], [10.0, 0.5]))
parametrize = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def tasks(case: Case) -> list[Episode]:
    """Two tasks of unequal size, with inputs of three numbers."""
    source = generator(1)
    found = []
    for y in case.y:
        parts = [Batch(torch.randn(len(y), 3, generator=source, dtype=torch.float64), y) for _ in range(2)]
        found.append(Episode(*parts))
    return found


def predictions(case: Case, n: int) -> Tensor:
    return torch.randn(n, case.outputs, generator=generator(2), dtype=torch.float64)


def test_every_target_is_tested_here() -> None:
    assert {case.target.kind for case in CASES.values()} == set(targets.ALL)
    assert all(CASES[name].target is target and target.kind == name for name, target in targets.ALL.items())


@parametrize
def test_padding_does_not_count(case: Case) -> None:
    whole = stack(tasks(case))
    for index, alone in enumerate(tasks(case)):
        n = len(alone.query.y)
        prediction = torch.full((len(whole.query.y[0]), case.outputs), float("nan"), dtype=torch.float64)
        prediction[:n] = predictions(case, n)
        for metric in case.target.metrics:
            seen = metric.of(prediction, one(whole.query, index))
            assert seen.shape == ()
            assert torch.isclose(seen, metric.of(predictions(case, n), alone.query), rtol=1e-12), metric.name


@parametrize
def test_metrics_go_through_vmap(case: Case) -> None:
    whole = stack(tasks(case))
    made = torch.stack([predictions(case, len(whole.query.y[0]))] * 2)
    for metric in case.target.metrics:
        found = func.vmap(metric.of)(made, whole.query)
        loop = torch.stack([metric.of(made[index], one(whole.query, index)) for index in range(2)])
        torch.testing.assert_close(found, loop, rtol=1e-12, atol=1e-12)


@parametrize
def test_a_perfect_prediction_is_better_than_another(case: Case) -> None:
    query = tasks(case)[0].query
    perfect = query.y if query.y.is_floating_point() else 9.0 * torch.nn.functional.one_hot(query.y, case.outputs)
    for metric in case.target.metrics:
        best, other = (metric.of(made.double(), query).item() for made in (perfect, predictions(case, len(query.y))))
        assert metric.improves(best, other) and not metric.improves(other, best) and not metric.improves(best, best)
        assert not metric.improves(float("nan"), None) and metric.improves(other, None)
        assert metric.shown(best)


@parametrize
def test_what_does_not_belong_together_is_refused(case: Case) -> None:
    query = tasks(case)[0].query
    case.target.check(predictions(case, len(query.y)), query)
    for prediction, y in case.wrong:
        with pytest.raises(UsageError):
            case.target.check(prediction, Batch(torch.zeros(len(y), 3), y))


@parametrize
def test_baselines_predict_in_the_form_of_a_model_and_pass_over_padding(case: Case) -> None:
    whole = stack(tasks(case))
    assert case.target.baselines
    for name, baseline in case.target.baselines.items():
        for index, alone in enumerate(tasks(case)):
            expected = baseline(alone.support, alone.query)
            case.target.check(expected, alone.query)
            padded = one(whole, index)
            support = padded.support
            counts = support.mask["example"]
            support = support._replace(x=torch.where(counts[:, None], support.x, 1e3))  # padding may hold anything
            found = baseline(support, padded.query)
            n, width = expected.shape
            torch.testing.assert_close(found[:n, :width], expected, rtol=1e-9, atol=1e-9, msg=name)
            assert not expected.isnan().any()


@parametrize
def test_a_loss_is_a_scalar_with_a_derivative(case: Case) -> None:
    query = tasks(case)[0].query
    made = predictions(case, len(query.y)).requires_grad_()
    (grad,) = torch.autograd.grad(case.target.loss(made, query.y), made)
    assert grad.isfinite().all() and grad.abs().sum() > 0


@parametrize
def test_raw_targets_are_read_and_predictions_are_decoded(case: Case) -> None:
    y, names = case.target.read(case.raw, None)
    assert len(y) == len(case.raw)
    again, same = case.target.read(case.raw, case.names)
    assert torch.equal(again, y) and same == case.names
    with pytest.raises(DataError):
        case.target.read(case.bad, case.names)
    records = case.target.decode(torch.randn(4, len(names)), names)
    assert len(records) == 4 and all(type(key) is str for record in records for key in record)


@parametrize
def test_a_saved_target_is_the_same_target(case: Case) -> None:
    spec = json.loads(json.dumps(dict(case.target.spec)))
    for again in (targets.ALL[case.target.kind].with_spec(spec), pickle.loads(pickle.dumps(case.target))):
        assert again.spec == case.target.spec
        assert torch.equal(again.read(case.raw, case.names)[0], case.target.read(case.raw, case.names)[0])
        made = predictions(case, 4).float()
        assert again.decode(made, NAMES[: case.outputs]) == case.target.decode(made, NAMES[: case.outputs])


@parametrize
def test_targets_go_to_what_is_learned_and_back(case: Case) -> None:
    y = case.y[0]
    torch.testing.assert_close(case.target.unscaled(case.target.scaled(y)), y, rtol=1e-12, atol=1e-12)
