"""Measuring: the interval, and what an evaluation must not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from rbml import algorithms
from rbml.algorithms import ridge_regression
from rbml.data.batch import Batch
from rbml.data.examples import Grouped
from rbml.data.inputs.table import Table
from rbml.data.targets import CLASSES, REAL
from rbml.data.targets.classes import ACCURACY
from rbml.errors import UsageError
from rbml.learner import Learner
from rbml.models import MLP
from rbml.recipe import Recipe, build
from rbml.tasks import Continual, FewShot, PerGroup, Sinusoid, generator, task_seeds
from rbml.training import Score, evaluate
from rbml.training.evaluator import BOTH, describe_sizes, draw, judge, per_task, sizes_of


def test_a_score_has_the_interval_of_the_mean() -> None:
    values = torch.tensor([0.2, 0.4, 0.9, 0.5])
    mean = (0.2 + 0.4 + 0.9 + 0.5) / 4
    spread = math.sqrt(sum((value - mean) ** 2 for value in (0.2, 0.4, 0.9, 0.5)) / 3)
    score = Score.of(values)
    assert score.tasks == 4
    assert score.mean == pytest.approx(mean)
    assert score.interval == pytest.approx(1.96 * spread / 2, rel=1e-6)
    assert math.isnan(Score.of(torch.tensor([0.5])).interval)


def test_accuracy_is_the_share_of_right_predictions_of_each_task() -> None:
    prediction = torch.tensor([[[0.1, 0.9], [0.8, 0.2]], [[0.3, 0.2], [0.1, 0.0]]])
    y = torch.tensor([[1, 1], [0, 0]])
    assert per_task(ACCURACY, prediction, Batch(y, y)).tolist() == [0.5, 1.0]


@pytest.fixture
def learner(recipe: Callable[..., Recipe]) -> Callable[..., Learner]:
    def made(**changes: object) -> Learner:
        return build.learner(recipe(steps=2, lr=0.3, **changes))

    return made


def test_an_evaluation_is_the_mean_over_its_own_tasks(learner: Callable[..., Learner], tasks: FewShot) -> None:
    ours = learner()
    found = evaluate(ours, tasks, 7, 5, stream=2)
    assert list(found) == ["transductive", "inductive"]
    for which, scores in ((which, metrics["accuracy"]) for which, metrics in found.items()):
        single = [ours.evaluate(tasks.draw([seed]), which).accuracy for seed in task_seeds(7, generator(5, 2))]
        rows = torch.cat([row for row in single if row is not None])
        assert [score.mean for score in scores] == pytest.approx(rows.mean(0).tolist())
        assert [score.interval for score in scores] == pytest.approx((1.96 * rows.std(0) / 7**0.5).tolist())
        assert len(scores) == 3
    assert found["inductive"] != evaluate(ours, tasks, 7, 6, stream=2)["inductive"]


def test_an_evaluation_does_not_depend_on_the_chunk(learner: Callable[..., Learner], tasks: FewShot) -> None:
    done: list[int] = []
    whole, pieces = (evaluate(learner(chunk=chunk), tasks, 10, 0, steps=1, advance=done.append) for chunk in (32, 3))
    assert done == [10, 3, 3, 3, 1]
    for which, scores in whole.items():
        theirs = pytest.approx([score.mean for score in pieces[which]["accuracy"]], abs=1e-6)
        assert [score.mean for score in scores["accuracy"]] == theirs


def test_tasks_are_drawn_a_chunk_at_a_time(tasks: FewShot) -> None:
    parts = list(draw(tasks, 7, 3, 0, 1))
    assert [part.tasks for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.query.x for part in parts]), tasks.draw(task_seeds(7, generator(0, 1))).query.x)


def test_transductive_and_inductive_differ_where_there_is_batch_norm(
    learner: Callable[..., Learner], tasks: FewShot
) -> None:
    found = evaluate(learner(norm="batch"), tasks, 20, 0)
    assert found["transductive"] != found["inductive"]
    found = evaluate(learner(norm="none"), tasks, 20, 0)
    assert list(found) == ["inductive"]  # the other would be the same
    assert found == {"inductive": evaluate(learner(norm="none"), tasks, 20, 0, statistics=BOTH)["transductive"]}


def test_intervals_are_over_groups_where_tasks_share_them() -> None:
    values = torch.tensor([1.0, 3.0, 4.0, 6.0, 9.0, 9.0])
    score = Score.of(values, [5, 5, 2, 2, 7, 7])
    means = [2.0, 5.0, 9.0]
    spread = torch.tensor(means).double().std().item()
    assert score.mean == pytest.approx(16 / 3) and (score.tasks, score.groups) == (6, 3)
    assert score.interval == pytest.approx(4.303 * spread / 3**0.5)  # Student's t with 2 degrees of freedom
    assert math.isnan(Score.of(values, [1] * 6).interval)
    assert Score.of(torch.tensor([float("nan"), 1.0])).shown("") == "diverged"


def test_tasks_of_groups_are_measured_over_the_groups() -> None:
    groups = torch.arange(4).repeat_interleave(8)
    x, y = torch.randn(32, 2, generator=generator(0)), groups[:, None].float()
    modality = Table(["a", "b"], [0.0, 0.0], [1.0, 1.0])
    source = PerGroup(Grouped(x, y, groups, [*"abcd"], "made up", modality), 2, 3)
    found = evaluate(ridge_regression(MLP(2, 1, [4])), source, 30, 0)
    assert list(found) == ["inductive"] and found["inductive"]["MAE"][0].groups == 4
    drawn = source.draw(range(9)).query.y.squeeze(-1)  # the targets are the numbers of the groups
    assert drawn.tolist() == [[group] * 3 for group in source.groups_of(range(9))]


def test_real_values_are_measured_by_every_metric_of_theirs() -> None:
    tasks = Sinusoid(shots=4, queries=6)
    learner = algorithms.maml(MLP(1, 1), steps=2, loss=REAL.loss)
    found = evaluate(learner, tasks, 5, 0, stream=2)["inductive"]
    assert list(found) == ["MAE", "RMSE", "R2"] and all(len(scores) == 3 for scores in found.values())
    episodes = tasks.draw(task_seeds(5, generator(0, 2)))
    last = learner.evaluate(episodes, "inductive").prediction
    assert found["MAE"][-1].mean == pytest.approx(float((last - episodes.query.y).abs().mean()), rel=1e-5)
    assert found["RMSE"][-1].mean == pytest.approx(
        float(((last - episodes.query.y) ** 2).mean((1, 2)).sqrt().mean()), rel=1e-5
    )
    wrong = algorithms.maml(MLP(1, 3), loss=lambda prediction, y: ((prediction[:, :1] - y) ** 2).mean())
    with pytest.raises(UsageError, match="real targets"):
        evaluate(wrong, tasks, 2, 0)


def test_baselines_are_judged_task_by_task(tasks: FewShot) -> None:
    episodes = tasks.sample(4, generator(0))
    found = judge(CLASSES.baselines["nearest neighbour"], ACCURACY, episodes)
    assert torch.equal(found, algorithms.nearest_neighbour(episodes)) and found.shape == (4,)


def test_the_sizes_of_tasks(tasks: FewShot) -> None:
    assert sizes_of(tasks) == {"ways": 3, "shots": 1, "queries": 2}
    assert describe_sizes(sizes_of(Sinusoid(5, 7))) == "5-shot, 7 queries"
    streams = Continual((torch.arange(40.0), torch.arange(40) // 10), ways=2, shots=3, queries=1, labels="global")
    assert (streams.ways, sizes_of(streams)["ways"]) == (4, 2)
    assert describe_sizes({}) == ""
