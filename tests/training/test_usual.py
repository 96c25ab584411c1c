"""What a run is used to: measured on its validation tasks as a user would meet them, once, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from rbml.data.batch import Batch, rows
from rbml.data.examples import Labelled
from rbml.data.inputs import Pictures
from rbml.data.setting import Setting
from rbml.data.targets import CLASSES
from rbml.recipe import Recipe, build
from rbml.recipe.streams import VALIDATE
from rbml.tasks import FewShot, generator, task_seeds
from rbml.training import RunFolder, usual
from rbml.training.adapting import adapt
from rbml.training.background import _background
from rbml.training.calibration import calibration_error, temperature
from rbml.training.learned import Learned
from rbml.training.unknown import Usual, layer_of
from rbml.training.usual import Look, Prior, look_of, measured, prior_of


def test_it_is_a_plain_loop_over_tasks(recipe: Callable[..., Recipe], tasks: FewShot) -> None:
    learner = build.learner(recipe(lr=0.3))
    source = FewShot((tasks.x, torch.arange(60) // 6), 3, 2, 2)
    found = measured(learner, source, seed=5, count=4)
    logits, truth, fewer, accuracies = [], [], [], []
    for seed in task_seeds(4, generator(5, VALIDATE, 1)):
        drawn = source.draw([seed])
        support, query = (Batch(part.x[0], part.y[0]) for part in (drawn.support, drawn.query))
        logits.append(learner.adapt(*support)(query.x).detach())
        truth.append(query.y)
        accuracies.append((logits[-1].argmax(1) == query.y).double().mean().item())
        one_less = learner.adapt(*rows(support, torch.tensor([1, 3, 5])))(query.x)
        fewer.append((one_less.argmax(1) == query.y).double())
    every, y = torch.cat(logits), torch.cat(truth)
    assert found.accuracy == pytest.approx((every.argmax(1) == y).double().mean().item())
    assert found.fewer == pytest.approx(torch.cat(fewer).mean().item())
    assert found.temperature == pytest.approx(temperature(every, y))
    assert found.error == pytest.approx((calibration_error(every, y), calibration_error(every / found.temperature, y)))
    assert Prior.from_json(json.loads(json.dumps(found.to_json())), None) == found
    gains = [now - less.mean().item() for now, less in zip(accuracies, fewer, strict=True)]
    assert found.noise == pytest.approx(torch.tensor(gains).double().std().item() / 2)


@pytest.mark.parametrize("shots", [2, 3])
@pytest.mark.parametrize("beside", [True, False])
def test_examples_are_left_out_of_validation_tasks_as_of_a_user_s(
    beside: bool, shots: int, recipe: Callable[..., Recipe], tasks: FewShot
) -> None:
    settings = recipe(algorithm="protonet", norm="none")
    setting, learner = Setting(Pictures(8), CLASSES, 3), build.learner(settings)
    loaded = Labelled(tasks.x, torch.arange(60) // 6, tasks.names, "made up", Pictures(8))
    background = _background(learner, loaded) if beside else None
    source = FewShot(loaded, 3, shots, 2)
    support = Batch(*(leaf[0] for leaf in source.draw([1]).support[:2]))
    adapted = learner.adapt(*support, ways=3)
    left = usual._left_out(learner, adapted, layer_of(learner), support, 3, background)
    prior = measured(learner, source, seed=5, count=4, background=background)
    stored = Batch((support.x * 255).round().to(torch.uint8), support.y)
    user = adapt(Learned(learner, settings, setting, ""), stored, list("abc"), prior).trust.usual
    expected = Usual.of(left, prior.usual)
    assert (background is not None) == beside and len(prior.usual.own) == 101
    assert user is not None and expected is not None
    assert user.threshold() == pytest.approx(expected.threshold(), abs=1e-4)
    assert (user.mean, user.std) == pytest.approx((expected.mean, expected.std), abs=1e-4)


def test_it_is_measured_once_and_without_data_there_is_none(
    trained: Callable[..., RunFolder], recipe: Callable[..., Recipe], tasks: FewShot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained("run", recipe(meta_steps=1, data="folder:none"))
    learner = run.learner()
    assert prior_of(run, learner, 3, 1) is None and look_of(run) is None
    loaded = Labelled(tasks.x, torch.arange(60) // 6, tasks.names, "made up", Pictures(8))
    monkeypatch.setattr(build, "examples", lambda *_: loaded)
    monkeypatch.setattr(usual, "TASKS", 3)
    found = prior_of(run, learner, 30, 8)
    assert found is not None and (found.ways, found.shots) == (10, 1)  # six pictures a class: one, and five queries
    look = look_of(run)
    assert look is not None and not look.is_foreign(tasks.x.float() / 255)
    monkeypatch.setattr(build, "examples", lambda *_: pytest.fail("measured again"))
    kept = look_of(run)
    assert kept is not None and torch.allclose(kept.mean, look.mean) and kept.far == pytest.approx(look.far)
    assert usual.read(run, None) == [found]


def test_pictures_of_another_kind_are_foreign() -> None:
    drawings = (torch.rand(300, 1, 12, 12, generator=generator(0)) > 0.8).float()
    look = Look.of(drawings)
    assert not look.is_foreign((torch.rand(9, 1, 12, 12, generator=generator(1)) > 0.8).float())
    assert look.is_foreign(torch.rand(9, 1, 12, 12, generator=generator(2)))
    assert look.is_foreign(torch.rand(9, 3, 12, 12))
