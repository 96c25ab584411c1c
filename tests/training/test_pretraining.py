"""Pretraining: ordinary supervised learning, in the same run, stopped and resumed in either stage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rbml.errors import CheckpointError, DivergedError, UsageError
from rbml.recipe import Recipe, build
from rbml.recipe.streams import PRETRAIN
from rbml.tasks import FewShot, Supervised, generator, task_seeds
from rbml.training import RunFolder, files, train

Same = Callable[[RunFolder, RunFolder], bool]


@pytest.fixture
def run(tmp_path: Path, tasks: FewShot) -> Callable[..., RunFolder]:
    """``run(name, recipe, stop_after=None)``: train a run that pretrains, or go on with it."""
    names = [index // 6 for index in range(60)]

    def made(name: str, recipe: Recipe, stop_after: int | None = None) -> RunFolder:
        folder, taken = RunFolder(tmp_path / name), count(1)
        if not folder.config.is_file():
            folder.create(recipe, {}, None)
        classes = Supervised((tasks.x, names), batch=8)
        list(train(folder, recipe, tasks, tasks, lambda: next(taken) == stop_after, classes))
        return folder

    return made


def test_it_is_adam_on_the_ordinary_loss_and_the_body_goes_into_the_learner(
    run: Callable[..., RunFolder], recipe: Callable[..., Recipe], tasks: FewShot
) -> None:
    settings = recipe(norm="none", pretrain=3, meta_steps=1, outer_lr=0.01, save_every=100)
    stopped = run("run", settings, 3)
    setting = build.Setting(build.setting(settings).modality, build.setting(settings).target, 10)
    model = build.pretrainer(settings, setting).model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    classes = Supervised((tasks.x, [index // 6 for index in range(60)]), batch=8)
    for step in range(3):
        batch = classes.draw(task_seeds(1, generator(0, PRETRAIN, step))).query
        optimizer.zero_grad()
        F.cross_entropy(model(batch.x[0]), batch.y[0]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.outer.clip)
        optimizer.step()
        schedule.step()
    found = files.load(stopped.last, "checkpoint")
    assert (found["stage"], found["step"]) == ("pretraining", 0)
    for name, leaf in model.named_parameters():
        torch.testing.assert_close(found["learner"][f"model.{name}"], leaf.detach(), rtol=1e-3, atol=1e-5)
    ours = build.learner(settings, stopped.setting(), {"blocks.0.conv.weight": model.blocks[0].conv.weight.detach()})
    fresh = build.learner(settings, stopped.setting()).state_dict()
    for name, leaf in ours.state_dict().items():
        same = torch.equal(leaf, fresh[name])
        assert same == (name != "model.blocks.0.conv.weight")


@pytest.mark.parametrize(("algorithm", "stops"), [("maml", (2,)), ("maml", (4, 3)), ("warp_grad", (5, 2))])
def test_a_run_that_was_stopped_in_either_stage_ends_as_one_that_never_was(
    algorithm: str, stops: tuple[int, ...], run: Callable[..., RunFolder], recipe: Callable[..., Recipe], same: Same
) -> None:
    settings = recipe(algorithm=algorithm, pretrain=5, meta_steps=6)
    whole = run("whole", settings)
    for stop_after in stops:
        torch.seed()
        cut = run("cut", settings, stop_after)
    assert cut.saved_step() == sum(stops) - 5
    torch.seed()
    assert same(whole, run("cut", settings))
    assert [line["step"] for line in whole.lines(pretraining=True)] == list(range(-4, 7))
    assert all(line["stage"] == "pretraining" for line in whole.lines(pretraining=True) if line["step"] < 1)


def test_what_is_still_pretraining_is_no_learner_yet(
    run: Callable[..., RunFolder], recipe: Callable[..., Recipe]
) -> None:
    folder = run("run", recipe(pretrain=5), 2)
    with pytest.raises(CheckpointError, match="still pretraining: rbml train --resume"):
        folder.learner("last")


def test_without_outer_steps_the_pretrained_learner_is_the_result(
    run: Callable[..., RunFolder], recipe: Callable[..., Recipe]
) -> None:
    folder = run("run", recipe(pretrain=2, meta_steps=0))
    best, last = (folder.learner(which).state_dict() for which in ("best", "last"))
    assert all(torch.equal(leaf, last[name]) for name, leaf in best.items())
    assert (folder.saved_step(), folder.best_validation() >= 0) == (0, True)


def test_what_it_needs_is_said(
    run: Callable[..., RunFolder], recipe: Callable[..., Recipe], tasks: FewShot, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="meta_steps must be at least 1 without pretraining"):
        recipe(meta_steps=0)
    folder = RunFolder(tmp_path / "other")
    folder.create(recipe(pretrain=2), {}, None)
    with pytest.raises(UsageError, match="give all training classes as classes="):
        list(train(folder, recipe(pretrain=2), tasks, tasks))
    with pytest.raises(DivergedError, match="of pretraining: begin another run with a smaller outer_lr"):
        run("run", recipe(pretrain=20, outer_lr=1e30, norm="none"))
