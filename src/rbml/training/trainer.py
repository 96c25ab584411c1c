"""The training loop. It reads from top to bottom, and yields the progress after every outer step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rbml.devices import CPU, numbers, placed
from rbml.errors import DivergedError, UsageError
from rbml.learner import Learner
from rbml.recipe import Recipe, build
from rbml.recipe.streams import TRAIN
from rbml.tasks import Supervised, TaskSource, generator, task_seeds
from rbml.training import files
from rbml.training.ahead import Ahead
from rbml.training.ensemble import Ranking
from rbml.training.evaluator import per_task
from rbml.training.log import Records, recorded
from rbml.training.pretraining import body_of, pretrain
from rbml.training.processes import ALONE, Processes
from rbml.training.progress import Outer, Progress
from rbml.training.run_folder import PRETRAINING, RunFolder, restore, to_be_restored
from rbml.training.start import look
from rbml.training.validation import Best, Validation
from rbml.tree import Tree, norm


def train(
    run: RunFolder,
    recipe: Recipe,
    training: TaskSource,
    validation: TaskSource,
    stop: Callable[[], bool] = lambda: False,
    classes: Supervised | None = None,
    processes: Processes = ALONE,
    device: torch.device = CPU,
) -> Generator[Progress]:
    """Meta-train from the run's last checkpoint, or from the start, to the recipe's last step.

    Random numbers are drawn per (seed, step, task), so that a resumed run gives the result of an uninterrupted one.

    Args:
        run: the run folder; :meth:`RunFolder.create` must have been called.
        recipe: what to do.
        training: where training tasks come from.
        validation: where validation tasks come from.
        stop: called after every step; if it returns true, the loop saves and ends.
        classes: all training classes at once; needed if the recipe pretrains.
        processes: those that train this run together, all of which must call this; the result does not depend on them.
        device: where it is computed. It is no part of the run, which may go on elsewhere: results agree to rounding.

    Yields:
        The progress after every outer step. The run's files stay open and locked until the generator is exhausted or
        closed.

    Raises:
        DivergedError: if a loss or a gradient is not finite. The last checkpoint is from before that.
        CheckpointError: if the checkpoint is damaged or of another model.
        UsageError: if the recipe pretrains and there are no classes.
        RbmlError: if a file cannot be written, or another process is training the same run.
    """
    if recipe.outer.pretrain and classes is None:
        raise UsageError("the recipe pretrains: give all training classes as classes=tasks.Supervised(...)")
    setting = run.setting()
    with recorded(run, processes.rank) as log:
        saved = files.load(run.last, "checkpoint") if run.last.is_file() else {}
        body: Tree = {}
        if recipe.outer.pretrain and (not saved or saved.get("stage") == PRETRAINING):
            assert classes is not None
            learner = build.pretrainer(recipe, build.setting(recipe, classes)).to(device)
            if (yield from pretrain(run, recipe, learner, classes, log, saved, stop, processes)):
                return
            body, saved = body_of(learner), {}
        learner = build.learner(to_be_restored(recipe) if saved else recipe, setting, body)
        if not saved:
            look(learner, training, recipe.outer.seed)
            run.begin(learner)
        learner.to(device)
        validated = Validation.of(training, validation, recipe, processes)
        yield from _across_tasks(run, recipe, learner, training, validated, log, saved, stop, processes)


def _across_tasks(
    run: RunFolder,
    recipe: Recipe,
    learner: Learner,
    training: TaskSource,
    validation: Validation,
    log: Records,
    saved: Mapping[str, Any],
    stop: Callable[[], bool],
    processes: Processes,
) -> Generator[Progress]:
    total, metric = recipe.outer.meta_steps, validation.metric
    shard = processes.shard(recipe.outer.tasks, recipe.execution.chunk)
    outer = Outer.of(learner, recipe.outer.lr, total)
    torch.manual_seed(recipe.outer.seed)  # rbml itself does not use the global state, but a model or an engine may
    step, best, ranking = 0, None, Ranking(recipe.outer.keep_best, metric)
    if saved:
        restore(learner, saved["learner"], run.last)
        outer.restore(saved)
        step, best = saved["step"], Best.restored(saved)
        ranking = Ranking.restored(ranking.size, metric, saved)
    processes.agree(learner)
    log.begin(step)
    log.prune(run.ensemble, [run.among_best(place) for place in ranking.steps])
    if total == 0:  # only pretraining: its result is the result of the run
        _keep(log, run.best, learner, 0, validation.measure(learner).double().mean().item())
        outer.save(log, run, learner, 0, None)

    def seeds(step: int) -> list[int]:
        return task_seeds(recipe.outer.tasks, generator(recipe.outer.seed, TRAIN, step))

    with Ahead(lambda step: training.draw(shard.own(seeds(step))), total) as ahead:
        while step < total and not _given_up(recipe, best):
            began = time.perf_counter()
            tasks = placed(ahead.of(step), learner.device)
            outer.optimizer.zero_grad()
            result = learner.backward(tasks, phase=learner.phase(step / total), shard=shard)
            losses = shard.joined(result.aux["loss"])
            values = shard.joined(per_task(metric, result.aux["prediction"], tasks.query))
            loss, size, value = numbers(result.loss, norm(result.grads), values.mean())  # the one wait for the device
            _check_finite(loss, size, losses, step, seeds(step), run)
            if recipe.outer.clip:
                torch.nn.utils.clip_grad_norm_(learner.parameters(), recipe.outer.clip)
            entry: dict[str, Any] = {"step": step + 1, "loss": loss, "grad_norm": size, metric.name: value}
            entry["outer_lr"] = outer.schedule.get_last_lr()[0]
            outer.optimizer.step()
            outer.schedule.step()
            step += 1

            if step % recipe.outer.validate_every == 0 or step == total:
                found, best = validation.entry(learner, step, best)
                entry |= found
                if best is not None and best.step == step:
                    _keep(log, run.best, learner, step, best.value)
                ranking = ranking.including(step, found["validation"])
                if step in ranking.steps:
                    _keep(log, run.among_best(step), learner, step, found["validation"])
            entry["seconds"] = time.perf_counter() - began
            log(entry)
            asked, done = processes.any(stop()), step == total or _given_up(recipe, best)
            if step % recipe.outer.save_every == 0 or done or asked:
                # The journal first: on resumption later entries are removed, but missing ones could not be recovered.
                processes.agree(learner)
                log.sync()
                outer.save(log, run, learner, step, best, **ranking.saved())
                log.prune(run.ensemble, [run.among_best(place) for place in ranking.steps])  # the last one named others
            yield Progress(step, entry["loss"], entry[metric.name], entry.get("validation"), metric)
            if asked:
                return


def _given_up(recipe: Recipe, best: Best | None) -> bool:
    """Return whether so many validations have brought no improvement that the run ends early."""
    return bool(recipe.outer.patience) and best is not None and best.waited >= recipe.outer.patience


def _keep(log: Records, path: Path, learner: Learner, step: int, validation: float) -> None:
    content = {"learner": learner.state_dict(), "step": step, "validation": validation}
    log.save(path, "best", content)


def _check_finite(loss: float, size: float, losses: Tensor, step: int, seeds: list[int], run: RunFolder) -> None:
    if math.isfinite(loss) and math.isfinite(size):
        return
    bad = [seed for seed, value in zip(seeds, losses.tolist(), strict=True) if not math.isfinite(value)]
    what = "loss" if bad else "gradient"
    kept = f"the last good checkpoint is kept in {run.path}" if run.last.is_file() else "there was no checkpoint before"
    raise DivergedError(
        f"the {what} is not finite at outer step {step + 1}, task seeds {_some(bad or seeds)}; {kept}. "
        "Begin another run with a smaller lr, outer_lr or clip."
    )


def _some(seeds: list[int]) -> str:
    shown = ", ".join(str(seed) for seed in seeds[:4])
    return shown if len(seeds) <= 4 else f"{shown} and {len(seeds) - 4} more of the step"
