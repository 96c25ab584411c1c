"""The training loop: against a plain loop, stopped and resumed, diverging, and flat in memory."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rbml.errors import CheckpointError, DivergedError, RbmlError
from rbml.recipe import Recipe, build
from rbml.recipe.streams import TRAIN, VALIDATE
from rbml.tasks import FewShot, generator, task_seeds
from rbml.training import RunFolder, ahead, files, train, trainer
from rbml.training.validation import Validation

Trained = Callable[..., RunFolder]
Same = Callable[[RunFolder, RunFolder], bool]


def learned(run: RunFolder, which: str = "checkpoint") -> dict[str, Tensor]:
    content = files.load(run.last if which == "checkpoint" else run.best, which)
    state: dict[str, Tensor] = content["learner"]
    return state


def test_it_is_adam_on_clipped_meta_gradients_with_a_cosine(
    recipe: Callable[..., Recipe], trained: Trained, tasks: FewShot
) -> None:
    settings = recipe(meta_steps=5, clip=0.02, outer_lr=0.02, seed=4, norm="none")
    learner = build.learner(settings)
    theta = dict(learner.named_parameters())
    first, second = ({name: torch.zeros_like(leaf) for name, leaf in theta.items()} for _ in range(2))
    norms = []
    for step in range(5):
        episodes = tasks.draw(task_seeds(2, generator(4, TRAIN, step)))
        grads = learner.meta_gradient(episodes).grads
        norms.append(math.sqrt(sum(float(grad.double().square().sum()) for grad in grads.values())))
        rate = 0.02 * (1 + math.cos(math.pi * step / 5)) / 2
        for name, leaf in theta.items():
            grad = grads[name] * min(1.0, 0.02 / norms[-1])
            first[name] = 0.9 * first[name] + 0.1 * grad
            second[name] = 0.999 * second[name] + 0.001 * grad**2
            slope = (second[name] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            leaf.data -= rate * first[name] / (1 - 0.9 ** (step + 1)) / slope
    run = trained("run", settings)
    assert min(norms) < 0.02 < max(norms)  # clipped, and not clipped
    end = learned(run)
    for name, leaf in theta.items():
        torch.testing.assert_close(end[name], leaf.detach(), atol=2e-5, rtol=2e-4)
    journal = list(run.lines())
    assert [entry["grad_norm"] for entry in journal] == pytest.approx(norms, rel=1e-3)
    assert [entry["step"] for entry in journal] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("algorithm", "stops"), [("maml", (1,)), ("maml", (3, 4, 4)), ("meta_sgd", (5, 2))])
def test_a_stopped_run_ends_as_one_that_never_stopped(
    algorithm: str, stops: tuple[int, ...], recipe: Callable[..., Recipe], trained: Trained, same: Same
) -> None:
    settings = recipe(algorithm=algorithm)
    whole = trained("whole", settings)
    for stop_after in stops:
        torch.seed()  # every process has another global random state
        cut = trained("cut", settings, stop_after)
    assert files.load(cut.last, "checkpoint")["step"] == sum(stops)
    torch.seed()
    assert same(whole, trained("cut", settings))


def test_a_failure_between_checkpoints_costs_only_the_steps_since(
    recipe: Callable[..., Recipe], trained: Trained, same: Same, tasks: FewShot
) -> None:
    settings = recipe()
    cut = trained("cut", settings, 4)
    steps = train(cut, settings, tasks, tasks)
    assert [next(steps).step for _ in range(4)] == [5, 6, 7, 8]
    steps.close()  # after the validation of step 8 and before the checkpoint of step 9
    assert files.load(cut.last, "checkpoint")["step"] == 6
    assert [entry["step"] for entry in cut.lines()][-1] == 8
    assert same(trained("whole", settings), trained("cut", settings))


def test_a_finished_run_stays_as_it_is(recipe: Callable[..., Recipe], trained: Trained, same: Same) -> None:
    settings = recipe(meta_steps=2)
    once = trained("once", settings)
    trained("twice", settings)
    assert same(once, trained("twice", settings))


def test_the_chunk_changes_neither_tasks_nor_results(
    recipe: Callable[..., Recipe], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[int, list[list[int]]] = {1: [], 4: []}
    losses = {}
    draw = FewShot.draw
    for chunk in drawn:
        monkeypatch.setattr(
            FewShot, "draw", lambda self, seeds, at=drawn[chunk]: at.append(list(seeds)) or draw(self, seeds)
        )
        run = trained(f"chunk {chunk}", recipe(tasks=4, chunk=chunk, meta_steps=4))
        losses[chunk] = [entry["loss"] for entry in run.lines()]
    each, four = ([seed for seeds in drawn[chunk] for seed in seeds] for chunk in drawn)
    assert each == four
    assert losses[1] == pytest.approx(losses[4], rel=1e-3)
    assert losses[1][0] == pytest.approx(losses[4][0], rel=1e-6)


def test_the_best_validation_is_kept(
    recipe: Callable[..., Recipe], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    accuracies = iter([0.4, 0.6, 0.6, 0.5])

    def validate(validation: Any, learner: Any) -> Tensor:
        seen.append({name: leaf.detach().clone() for name, leaf in learner.state_dict().items()})
        return torch.tensor([next(accuracies)], dtype=torch.float64)

    monkeypatch.setattr(Validation, "measure", validate)
    run = trained("run", recipe(validate_every=2, meta_steps=8))
    best = files.load(run.best, "best")
    assert (best["step"], best["validation"]) == (4, 0.6)
    assert all(torch.equal(leaf, seen[1][name]) for name, leaf in best["learner"].items())
    assert [entry.get("validation") for entry in run.lines()] == [None, 0.4, None, 0.6, None, 0.6, None, 0.5]
    assert torch.equal(run.learner("last").state_dict()["model.head.bias"], seen[3]["model.head.bias"])
    assert torch.equal(run.learner().state_dict()["model.head.bias"], seen[1]["model.head.bias"])


def test_a_checkpoint_is_never_ahead_of_what_it_counts_on(
    recipe: Callable[..., Recipe], tasks: FewShot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save, steps = RunFolder(tmp_path / "run"), files.save, []

    def checked(path: Path, kind: str, content: dict[str, Any]) -> None:
        if kind == "checkpoint":  # if the process died right after it, nothing would be made up for
            assert content["best"] == (files.load(run.best, "best")["validation"] if run.best.exists() else None)
            assert [entry["step"] for entry in run.lines()] == list(range(1, content["step"] + 1))
            steps.append(content["step"])
        save(path, kind, content)

    monkeypatch.setattr(files, "save", checked)
    accuracies = iter([0.1, 0.2, 0.3, 0.25, 0.4, 0.5])
    monkeypatch.setattr(Validation, "measure", lambda *_: torch.tensor([next(accuracies)], dtype=torch.float64))
    run.create(recipe(validate_every=2, save_every=2), {}, None)
    list(train(run, recipe(validate_every=2, save_every=2), tasks, tasks))
    assert steps == [2, 4, 6, 8, 10, 12]


def test_validation_is_the_accuracy_on_the_same_tasks_each_time(
    recipe: Callable[..., Recipe], trained: Trained, tasks: FewShot
) -> None:
    run = trained("run", recipe(meta_steps=4))
    held_out = tasks.sample(4, generator(0, VALIDATE))
    accuracy = run.learner("last").evaluate(held_out).accuracy
    assert accuracy is not None
    assert list(run.lines())[-1]["validation"] == pytest.approx(float(accuracy[:, -1].mean()))


def poisoned(poison: float) -> FewShot:
    """Tasks of ten classes, of which one picture of class 3 is not a picture."""
    x = torch.rand(60, 1, 8, 8, generator=generator(1))
    x[20] = poison
    return FewShot((x, torch.arange(60) // 6), 3, 1, 2)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_step_and_tasks_and_keeps_the_checkpoint(
    poison: float, recipe: Callable[..., Recipe], trained: Trained
) -> None:
    settings = recipe(save_every=1, norm="none", meta_steps=60)
    trained("run", settings, 1)
    bad = poisoned(poison)
    seeds, step = next(hit for hit in hits(bad, settings) if hit[1] > 1)
    run = trained("run", settings, 1)
    before = run.last.read_bytes()
    for _ in range(2):  # it stays resumable, and comes to the same end
        with pytest.raises(DivergedError) as caught:
            list(train(run, settings, bad, bad))
        message = str(caught.value)
        assert f"outer step {step + 1}," in message
        assert all(str(seed) in message for seed in seeds)
        others = [str(seed) for seed in task_seeds(2, generator(0, TRAIN, step)) if seed not in seeds]
        assert not any(seed in message for seed in others)
        assert str(run.path) in message
    assert files.load(run.last, "checkpoint")["step"] == step
    assert all(torch.isfinite(leaf).all() for leaf in learned(run).values())
    assert step == 2 or run.last.read_bytes() != before


def hits(tasks: FewShot, settings: Recipe) -> Iterator[tuple[list[int], int]]:
    """Yield the seeds of the tasks that hold the bad picture, and their step."""
    for step in range(settings.outer.meta_steps):
        seeds = task_seeds(settings.outer.tasks, generator(settings.outer.seed, TRAIN, step))
        hit = [seed for seed in seeds if any(20 in rows for rows in tasks.indices([seed]))]
        if hit:
            yield hit, step


def test_a_gradient_that_is_not_finite_is_an_error_of_its_own(
    recipe: Callable[..., Recipe], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([1.0, 1.0, math.inf])
    monkeypatch.setattr(trainer, "norm", lambda tree: torch.tensor(next(sizes)))
    with pytest.raises(
        DivergedError, match=r"the gradient is not finite at outer step 3, .*; there was no checkpoint before"
    ):
        trained("run", recipe(tasks=40))


def test_only_a_few_of_many_seeds_are_named(
    recipe: Callable[..., Recipe], trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "norm", lambda tree: torch.tensor(math.nan))
    with pytest.raises(DivergedError, match="and 36 more of the step") as caught:
        trained("run", recipe(tasks=40))
    assert len(str(caught.value)) < 400


def test_two_trainers_of_one_run_are_kept_apart(
    recipe: Callable[..., Recipe], trained: Trained, tasks: FewShot
) -> None:
    settings = recipe()
    run = trained("run", settings, 1)
    first = train(run, settings, tasks, tasks)
    next(first)
    with pytest.raises(RbmlError, match="another process"):
        next(train(run, settings, tasks, tasks))
    first.close()
    next(train(run, settings, tasks, tasks))


def test_a_checkpoint_of_another_model_is_refused(recipe: Callable[..., Recipe], trained: Trained) -> None:
    run = trained("run", recipe(), 1)
    with pytest.raises(CheckpointError, match=r"last\.pt belongs to another model.*size mismatch for model\."):
        trained("run", recipe(filters=3))
    with pytest.raises(CheckpointError, match="belongs to another model"):
        trained("run", recipe().changed(model="mlp"))
    assert trained("run", recipe(), 1).path == run.path


def test_steps_leave_no_tensor_behind(
    recipe: Callable[..., Recipe], trained: Trained, tasks: FewShot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "WORTH", math.inf)  # no thread that may be drawing while tensors are counted
    settings = recipe(meta_steps=40, validate_every=1000, save_every=1000)
    run = trained("run", settings, 1)
    steps = train(run, settings, tasks, tasks)

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    for _ in range(4):
        next(steps)
    early = alive()
    for _ in range(25):
        next(steps)
    assert alive() <= early
    steps.close()
