"""Supervised learning on all training classes at once, before training across tasks begins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch

from rbml.devices import numbers, placed
from rbml.errors import DivergedError
from rbml.learner import Learner
from rbml.recipe import Recipe
from rbml.recipe.streams import PRETRAIN
from rbml.tasks import Supervised, generator, task_seeds
from rbml.training.evaluator import per_task
from rbml.training.log import Records
from rbml.training.processes import Processes
from rbml.training.progress import Outer, Progress
from rbml.training.run_folder import PRETRAINING, RunFolder, restore
from rbml.tree import Tree, norm


def pretrain(
    run: RunFolder,
    recipe: Recipe,
    learner: Learner,
    classes: Supervised,
    log: Records,
    saved: Mapping[str, Any],
    stop: Callable[[], bool],
    processes: Processes,
) -> Generator[Progress, None, bool]:
    """Train a learner without inner steps in the ordinary way, one batch per step, with Adam and a cosine.

    Steps are numbered so that the last is 0: training across tasks begins with 1.

    Args:
        run: the run folder.
        recipe: the recipe, with the number of steps, the learning rate and the seed.
        learner: made by :func:`rbml.recipe.build.pretrainer`; it is trained in place.
        classes: all training classes.
        log: the journal.
        saved: the checkpoint from which to resume; empty to begin.
        stop: called after every step; returns whether to save and stop.
        processes: that train together. A batch is not divided among them: the first one computes it.

    Yields:
        The progress after every step.

    Returns:
        Whether it was stopped before its last step.

    Raises:
        DivergedError: if a loss or a gradient is not finite.
    """
    total, metric = recipe.outer.pretrain, classes.target.metrics[0]
    shard = processes.shard(1, 1)
    outer = Outer.of(learner, recipe.outer.lr, total)
    torch.manual_seed(recipe.outer.seed)
    step = -total
    if saved:
        restore(learner, saved["learner"], run.last)
        outer.restore(saved)
        step = saved["step"]
    log.begin(step)
    while step < 0:  # the same order as in trainer._across_tasks: step, journal, checkpoint
        began = time.perf_counter()
        seeds = task_seeds(1, generator(recipe.outer.seed, PRETRAIN, step + total))
        batch = placed(classes.draw(seeds), learner.device)
        outer.optimizer.zero_grad()
        result = learner.backward(batch, shard=shard)
        values = shard.joined(per_task(metric, result.aux["prediction"], batch.query))
        loss, size, value = numbers(result.loss, norm(result.grads), values.mean())  # the one wait for the device
        if not math.isfinite(loss) or not math.isfinite(size):
            raise DivergedError(
                f"the loss or its gradient is not finite at step {step + total + 1} of pretraining: begin another run "
                "with a smaller outer_lr"
            )
        if recipe.outer.clip:
            torch.nn.utils.clip_grad_norm_(learner.parameters(), recipe.outer.clip)
        rate = outer.schedule.get_last_lr()[0]
        outer.optimizer.step()
        outer.schedule.step()
        step += 1
        entry = {"step": step, "stage": PRETRAINING, "loss": loss, "grad_norm": size, metric.name: value}
        log(entry | {"outer_lr": rate, "seconds": time.perf_counter() - began})
        asked = processes.any(stop())
        if (step + total) % recipe.outer.save_every == 0 or step == 0 or asked:
            log.sync()
            processes.agree(learner)
            outer.save(log, run, learner, step, None, stage=PRETRAINING)
        yield Progress(step, loss, value, None, metric)
        if asked:
            return True
    return False


def body_of(learner: Learner) -> Tree:
    """Return the parameters and buffers of a pretrained model, by name, without its head."""
    head = set(learner.head)
    return {name: leaf.clone() for name, leaf in learner.model.state_dict().items() if name not in head}
