"""The presets for real values: their meta-gradients, and what an adapted model returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from rbml import Batch, Episodes, algorithms, data, models
from rbml.data.targets import REAL
from rbml.errors import UsageError
from rbml.hypergrad import Adjoint, Unrolled
from rbml.tasks import PerGroup, generator
from rbml.tree import Tree, under

Curves = Callable[..., Episodes]
PRESETS = {"ridge_regression": algorithms.ridge_regression, "alpaca": algorithms.alpaca}


def net(outputs: int = 1) -> models.MLP:
    return models.MLP(2, outputs, (4, 3), nn.Tanh).double()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_meta_gradient_against_central_differences(name: str, curves: Curves) -> None:
    learner, tasks = PRESETS[name](net(2)), curves(outputs=2)
    for parameter in learner.phi.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    exact = [learner.meta_gradient(tasks, phase=learner.phase(1)._replace(hypergradient=e)).grads
             for e in (Adjoint(keep=1), Unrolled())]  # fmt: skip
    for key, parameter in learner.named_parameters():
        if not parameter.requires_grad:
            continue
        toward = torch.randn(parameter.shape, dtype=torch.float64)
        losses = []
        for way in (1e-5, -1e-5):
            parameter.data += way * toward
            losses.append(float(learner.evaluate(tasks, metrics=()).loss[:, -1].mean()))
            parameter.data -= way * toward
        for grads in exact:
            found = float((grads[key] * toward).sum())
            assert found == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6, abs=1e-8), key


def test_ridge_regression_is_ridge_on_learned_features(curves: Curves) -> None:
    model, tasks = net(), curves()
    learner = algorithms.ridge_regression(model, strength=0.3)
    found = learner.evaluate(tasks, metrics=REAL.metrics)
    own: Tree = {name: leaf.detach() for name, leaf in learner.model.named_parameters()}
    for task in range(tasks.tasks):
        seen = [functional_call(model.body, under(own, "body."), (batch.x[task],)) for batch in tasks]
        truth = fitted(seen[0], tasks.support.y[task], seen[1], 0.3)
        assert torch.allclose(found.prediction[task], truth)
        assert float(found.metrics["MAE"][task, -1]) == pytest.approx(float((truth - tasks.query.y[task]).abs().mean()))


def fitted(x: Tensor, y: Tensor, query: Tensor, strength: float) -> Tensor:
    centred = x - x.mean(0)
    pull = strength * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(centred.T @ centred + pull, centred.T @ (y - y.mean(0)))
    return (query - x.mean(0)) @ weight + y.mean(0)


def test_an_adapted_model_gives_an_interval(curves: Curves) -> None:
    tasks = curves()
    learner = algorithms.alpaca(net(), noise=0.5, offset=1.0)
    adapted = learner.adapt(tasks.support.x[0], tasks.support.y[0])
    prediction = adapted(tasks.query.x[0])
    assert torch.allclose(prediction, learner.evaluate(tasks, metrics=()).prediction[0])
    record = REAL.decode(prediction.detach(), ["score"])[0]
    assert set(record) == {"value", "low", "high"} and record["low"] < record["value"] < record["high"]
    near, far = (adapted(torch.full((1, 2), size, dtype=torch.float64)).detach()[0, 1] for size in (0.0, 50.0))
    assert near != far


def test_from_files_of_rows_to_a_record_with_an_interval(tmp_path: Path) -> None:
    """A table of groups is learned on; a file of one new group is adapted to, another one predicted."""
    lines = ["who,dose,score", *(f"p{g},{0.1 * n},{10 * g + (g + 1) * 0.1 * n}" for g in range(8) for n in range(9))]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    train = data.load(f"table:{tmp_path / 'table.csv'}", "train", group="who", target="score")
    tasks = PerGroup(train, shots=3, queries=4)
    learner = algorithms.alpaca(models.MLP(**train.modality.facts(), outputs=tasks.outputs), offset=40.0, noise=5.0)
    assert set(learner.backward(tasks.sample(4, generator(0))).grads) <= {
        name for name, _ in learner.named_parameters()
    }
    (tmp_path / "support.csv").write_text("score,dose\n21,0.1\n23,0.5\n")
    (tmp_path / "new.csv").write_text("dose\n0.3\n0.9\n")
    table = train.modality
    known, new = (table.find([tmp_path / f"{name}.csv"], labelled=name == "support") for name in ("support", "new"))
    y, names = REAL.read(known.labels, table.targets)
    adapted = learner.adapt(table.ready(table.read(known.raw)), y)
    records = REAL.decode(adapted(table.ready(table.read(new.raw))).detach(), names)
    assert len(records) == 2 and all(record["low"] < record["value"] < record["high"] for record in records)


def test_tasks_of_unequal_size_in_one_stack(curves: Curves) -> None:
    whole = curves(tasks=2, n=5)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    y = torch.where(mask[..., None], whole.support.y, torch.nan)
    stacked = Episodes(Batch(whole.support.x, y, {"example": mask}), whole.query)
    alone = Episodes(*(Batch(b.x[1:, :k], b.y[1:, :k]) for b, k in ((whole.support, 3), (whole.query, 5))))
    for make in PRESETS.values():
        learner = make(net())
        one, other = (learner.evaluate(tasks, metrics=()).prediction[-1] for tasks in (stacked, alone))
        assert torch.allclose(one, other, rtol=1e-12)


def test_the_head_must_be_a_layer_that_can_be_replaced() -> None:
    with pytest.raises(UsageError, match=r"nn\.Linear inside the model"):
        algorithms.alpaca(nn.Linear(3, 1))
    own = nn.Sequential(nn.Linear(3, 4), models.BayesianLinear(4, 1))
    learner = algorithms.alpaca(own)
    assert learner.head == ["1.rows.weight", "1.rows.bias"] and learner.adapted == learner.head
    assert isinstance(
        algorithms.alpaca(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))).model[1], models.BayesianLinear
    )
