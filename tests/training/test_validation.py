from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rbml.recipe import Recipe
from rbml.recipe.streams import SEEN
from rbml.tasks import FewShot, generator, task_seeds
from rbml.training import RunFolder, files, train
from rbml.training.validation import Best, Validation

Trained = Callable[..., RunFolder]
Same = Callable[[RunFolder, RunFolder], bool]


def measured(monkeypatch: pytest.MonkeyPatch, rows: list[list[float]]) -> None:
    """Let validations find these accuracies of their tasks, one after another."""
    given = iter(rows)
    monkeypatch.setattr(Validation, "measure", lambda *_: torch.tensor(next(given), dtype=torch.float64))


def test_a_validation_also_measures_new_tasks_of_the_training_part(
    recipe: Callable[..., Recipe], trained: Trained, tasks: FewShot
) -> None:
    settings = recipe(meta_steps=4, validate_every=2, validate_tasks=3)
    run = trained("run", settings)
    entries = [entry for entry in run.lines() if "validation" in entry]
    assert [entry["step"] for entry in entries] == [2, 4]
    new = tasks.draw(task_seeds(3, generator(settings.outer.seed, SEEN)))
    accuracy = run.learner("last").evaluate(new, each_step=False).accuracy
    assert accuracy is not None
    assert entries[-1]["validation_seen"] == pytest.approx(accuracy.double().mean().item())


def test_how_far_it_fell_behind_is_measured_on_the_same_tasks(
    recipe: Callable[..., Recipe], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, [[0.5, 0.9], [0.3, 0.7], [0.6, 0.9]])
    run = trained("run", recipe(meta_steps=6, validate_every=2))
    first, second, third = (entry for entry in run.lines() if "validation" in entry)
    assert "behind" not in first
    assert (second["behind"], second["behind_interval"]) == pytest.approx((0.2, 0.0), abs=1e-12)  # equal on both tasks
    assert (third["behind"], third["behind_interval"]) == pytest.approx((-0.05, 1.96 * 0.05), abs=1e-9)
    assert files.load(run.best, "best")["step"] == 6


def test_a_run_without_patience_goes_to_its_end_and_one_with_it_ends_early(
    recipe: Callable[..., Recipe], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [[0.4], [0.6], [0.5], [0.6], [0.7], [0.1]]
    measured(monkeypatch, rows)
    assert trained("whole", recipe(meta_steps=6, validate_every=1)).saved_step() == 6
    measured(monkeypatch, rows)
    run = trained("early", recipe(meta_steps=6, validate_every=1, patience=2))
    assert run.saved_step() == 4 and files.load(run.best, "best")["step"] == 2
    assert trained("early", recipe(meta_steps=6, validate_every=1, patience=2)).saved_step() == 4  # and stays there


def test_patience_counts_on_where_a_stopped_run_was(
    recipe: Callable[..., Recipe], trained: Trained, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(meta_steps=9, validate_every=1, patience=3)
    rows = [[0.4, 0.5], [0.6, 0.5], [0.5, 0.5], [0.5, 0.4], [0.5, 0.3]]
    measured(monkeypatch, rows)
    whole = trained("whole", settings)
    measured(monkeypatch, rows)
    for _ in range(2):
        trained("cut", settings, 2)
    cut = trained("cut", settings)
    assert cut.saved_step() == whole.saved_step() == 5
    assert same(whole, cut)


def test_a_checkpoint_of_before_goes_on() -> None:
    assert Best.restored({"best": None}) is None and Best.restored({"best": float("-inf")}) is None
    assert Best.restored({"best": 0.5}) == Best(0, 0.5, None)


def test_a_first_validation_that_is_no_number_is_not_the_best(
    recipe: Callable[..., Recipe], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, [[float("nan")], [0.2]])
    run = trained("run", recipe(meta_steps=2, validate_every=1, patience=1))
    assert run.saved_step() == 2 and files.load(run.best, "best")["step"] == 2


def test_tasks_for_validations_are_none_that_a_step_draws(
    recipe: Callable[..., Recipe], tasks: FewShot, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    draw = FewShot.draw
    monkeypatch.setattr(FewShot, "draw", lambda self, seeds: drawn.append(list(seeds)) or draw(self, seeds))
    run = RunFolder(tmp_path / "run")
    settings = recipe(meta_steps=2, validate_every=2, validate_tasks=3, tasks=2)
    run.create(settings, {}, None)
    list(train(run, settings, tasks, tasks))
    assert [len(seeds) for seeds in drawn] == [3, 2, 2, 3]
    assert len({seed for seeds in drawn for seed in seeds}) == 10
