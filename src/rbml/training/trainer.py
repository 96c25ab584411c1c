"""The training loop. It reads from top to bottom, and yields what happened at every outer step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbml.errors import DivergedError
from rbml.learner import Learner
from rbml.tasks import Episodes, FewShot, generator, task_seeds
from rbml.training import files
from rbml.training.evaluator import accuracy
from rbml.training.recipe import TRAIN, VALIDATE, Recipe
from rbml.training.run_folder import RunFolder, restore
from rbml.tree import norm


@dataclass(frozen=True)
class Progress:
    """What one outer step came to.

    Attributes:
        step: outer steps taken, from 1.
        loss: mean query loss of the step's tasks.
        accuracy: mean query accuracy of the step's tasks, 0 to 1.
        validation: accuracy on the validation tasks, where there was a validation.
    """

    step: int
    loss: float
    accuracy: float
    validation: float | None


def train(
    run: RunFolder, recipe: Recipe, training: FewShot, validation: FewShot, stop: Callable[[], bool] = lambda: False
) -> Iterator[Progress]:
    """Meta-train from the run's last checkpoint, or from the start, to the recipe's last step.

    Random numbers are drawn per (seed, step, task), so a run that was stopped goes on as if it never had been.

    Args:
        run: where it is written; :meth:`RunFolder.create` was called.
        recipe: what to do.
        training: where training tasks come from.
        validation: where validation tasks come from.
        stop: asked after every step; the loop saves and ends when it says so.

    Raises:
        DivergedError: if a loss or a gradient is not finite. The last checkpoint is from before.
        CheckpointError: if the checkpoint is damaged or of another model.
    """
    learner = recipe.build_learner()
    optimizer = torch.optim.Adam(learner.parameters(), lr=recipe.outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.meta_steps)
    step, best = 0, -math.inf
    if run.last.is_file():
        step, best = _go_on(run, learner, optimizer, schedule)
    run.trim_journal(step)
    held_out = validation.sample(recipe.validate_tasks, generator(recipe.seed, VALIDATE))

    with run.journal.open("a") as journal, _board(run, step) as board:
        while step < recipe.meta_steps:
            began = time.perf_counter()
            seeds = task_seeds(recipe.tasks, generator(recipe.seed, TRAIN, step))
            episodes = training.draw(seeds)
            optimizer.zero_grad()
            result = learner.backward(episodes)
            size = norm(result.grads)
            _check_finite(result.loss, size, result.aux["loss"], step, seeds, run)
            if recipe.clip:
                torch.nn.utils.clip_grad_norm_(learner.parameters(), recipe.clip)
            entry: dict[str, Any] = {"step": step + 1, "loss": result.loss.item(), "grad_norm": size.item()}
            entry["accuracy"] = accuracy(result.aux["prediction"], episodes.query.y).mean().item()
            entry["outer_lr"] = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            step += 1

            done = step == recipe.meta_steps
            if step % recipe.validate_every == 0 or done:
                entry["validation"] = _validate(learner, held_out)
                if entry["validation"] > best:
                    best = entry["validation"]
                    files.save(run.best, "best", {"learner": learner.state_dict(), "step": step, "validation": best})
            entry["seconds"] = time.perf_counter() - began
            journal.write(json.dumps(entry) + "\n")
            board(entry)
            asked = stop()
            if step % recipe.save_every == 0 or done or asked:
                journal.flush()
                _save(run, learner, optimizer, schedule, step, best)
            yield Progress(step, entry["loss"], entry["accuracy"], entry.get("validation"))
            if asked:
                return


def _validate(learner: Learner, episodes: Episodes) -> float:
    final = learner.evaluate(episodes).accuracy
    assert final is not None  # few-shot tasks have classes
    return final[:, -1].mean().item()


def _check_finite(loss: Tensor, size: Tensor, losses: Tensor, step: int, seeds: list[int], run: RunFolder) -> None:
    if bool(torch.isfinite(loss)) and bool(torch.isfinite(size)):
        return
    bad = [seed for seed, value in zip(seeds, losses.tolist(), strict=True) if not math.isfinite(value)]
    what = "loss" if bad else "gradient"
    raise DivergedError(
        f"the {what} is not finite at outer step {step + 1}, task seeds {bad or seeds}. The last good checkpoint is kept in "
        f"{run.path}. Try a smaller --lr or --outer-lr, or --clip."
    )


Optimizer = torch.optim.Optimizer
Schedule = torch.optim.lr_scheduler.LRScheduler


def _save(run: RunFolder, learner: Learner, optimizer: Optimizer, schedule: Schedule, step: int, best: float) -> None:
    content = {
        "learner": learner.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "random": torch.get_rng_state(),
        "step": step,
        "best": best,
    }
    files.save(run.last, "checkpoint", content)


def _go_on(run: RunFolder, learner: Learner, optimizer: Optimizer, schedule: Schedule) -> tuple[int, float]:
    content = files.load(run.last, "checkpoint")
    restore(learner, content["learner"], run.last)
    optimizer.load_state_dict(content["optimizer"])
    schedule.load_state_dict(content["schedule"])
    torch.set_rng_state(content["random"])
    return content["step"], content["best"]


class _board:
    """TensorBoard's curves, where TensorBoard is installed."""

    def __init__(self, run: RunFolder, step: int) -> None:
        self.run, self.step, self.writer = run, step, None

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return lambda entry: None
        self.writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=self.step + 1)
        return self.write

    def write(self, entry: dict[str, Any]) -> None:
        for name in ("loss", "accuracy", "validation", "grad_norm", "outer_lr"):
            if name in entry:
                self.writer.add_scalar(name, entry[name], entry["step"])

    def __exit__(self, *reason: object) -> None:
        if self.writer is not None:
            self.writer.close()
