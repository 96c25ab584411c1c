"""The training loop. It reads from top to bottom, and yields what happened at every outer step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rbml.errors import DivergedError
from rbml.learner import Learner
from rbml.tasks import Episodes, FewShot, generator, task_seeds
from rbml.training import files
from rbml.training.evaluator import accuracy
from rbml.training.log import Log
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
) -> Generator[Progress]:
    """Meta-train from the run's last checkpoint, or from the start, to the recipe's last step.

    Random numbers are drawn per (seed, step, task), so a run that was stopped goes on as if it never had been.

    Args:
        run: where it is written; :meth:`RunFolder.create` was called.
        recipe: what to do.
        training: where training tasks come from.
        validation: where validation tasks come from.
        stop: asked after every step; the loop saves and ends when it says so.

    Yields:
        What every outer step came to. Until the generator is exhausted or closed, the run's files stay open and locked.

    Raises:
        DivergedError: if a loss or a gradient is not finite. The last checkpoint is from before.
        CheckpointError: if the checkpoint is damaged or of another model.
        RbmlError: if a file cannot be written, or another process is training the same run.
    """
    learner = recipe.build_learner()
    optimizer = torch.optim.Adam(learner.parameters(), lr=recipe.outer_lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.meta_steps)
    held_out = validation.sample(recipe.validate_tasks, generator(recipe.seed, VALIDATE))

    with run.locked(), Log(run) as log:
        torch.manual_seed(recipe.seed)  # rbml draws nothing from the global state; a model or an engine may
        step, best = _go_on(run, learner, optimizer, schedule) if run.last.is_file() else (0, -math.inf)
        log.begin(step)
        while step < recipe.meta_steps:
            began = time.perf_counter()
            seeds = task_seeds(recipe.tasks, generator(recipe.seed, TRAIN, step))
            episodes = training.draw(seeds)
            optimizer.zero_grad()
            result = learner.backward(episodes, phase=learner.phase(step / recipe.meta_steps))
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
            log(entry)
            asked = stop()
            if step % recipe.save_every == 0 or done or asked:
                log.sync()
                _save(run, learner, optimizer, schedule, step, best)
            yield Progress(step, entry["loss"], entry["accuracy"], entry.get("validation"))
            if asked:
                return


def _validate(learner: Learner, episodes: Episodes) -> float:
    final = learner.evaluate(episodes, each_step=False).accuracy
    assert final is not None  # few-shot tasks have classes
    return final[:, -1].mean().item()


def _check_finite(loss: Tensor, size: Tensor, losses: Tensor, step: int, seeds: list[int], run: RunFolder) -> None:
    if bool(torch.isfinite(loss)) and bool(torch.isfinite(size)):
        return
    bad = [seed for seed, value in zip(seeds, losses.tolist(), strict=True) if not math.isfinite(value)]
    what = "loss" if bad else "gradient"
    kept = f"the last good checkpoint is kept in {run.path}" if run.last.is_file() else "no checkpoint was due before"
    raise DivergedError(
        f"the {what} is not finite at outer step {step + 1}, task seeds {_some(bad or seeds)}; {kept}. "
        "Begin another run with a smaller lr, outer_lr or clip."
    )


def _some(seeds: list[int]) -> str:
    shown = ", ".join(str(seed) for seed in seeds[:4])
    return shown if len(seeds) <= 4 else f"{shown} and {len(seeds) - 4} more of the step"


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
