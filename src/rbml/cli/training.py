"""Training with progress on the terminal: what the run does, how far it is, and how to resume it."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import torch

from rbml import hypergrad
from rbml.cli.devices import chosen_device
from rbml.cli.processes import check_work
from rbml.cli.reading import reading_shown
from rbml.cli.show import console, follow, keep_memory
from rbml.diagnostics.explaining import explain
from rbml.learner import Learner
from rbml.learner.choosing import choose
from rbml.recipe import Recipe, build
from rbml.recipe.streams import TRAIN
from rbml.strategy.serialize import described
from rbml.tasks import TaskSource, generator, task_seeds
from rbml.training import Interrupt, RunFolder, train
from rbml.training.evaluator import describe_sizes, describe_steps, normalises, sizes_of
from rbml.training.processes import ALONE, Processes, Several


def meta_train(
    folder: RunFolder,
    recipe: Recipe,
    data_root: str | None,
    threads: int | None,
    again: str,
    processes: Processes = ALONE,
) -> None:
    """Train a run from its last checkpoint to its end, showing progress.

    Args:
        folder: the run.
        recipe: what to do.
        data_root: where data is looked for; ``None`` means where the run has looked before.
        threads: processor threads; ``None`` means as many as before: identical results need the same number.
        again: the command that resumes the run.
        processes: that train it together; this is the first one of them.

    Raises:
        SystemExit: with 130 or 143 after a signal; the run is saved.
    """
    keep_memory()
    device = chosen_device()
    idle = check_work(recipe, processes, begins=not folder.config.is_file())
    if folder.config.is_file():
        config = folder.read_config()
        data_root, threads = data_root or config["data_root"], threads or config["threads"]
    if threads:
        torch.set_num_threads(threads)
    if not folder.config.is_file() and recipe.tasks.name in (None, "few_shot"):
        build.learner(recipe)  # raises for wrong options before any data is fetched
    with reading_shown():
        training, validation = (build.tasks(recipe, part, data_root, device) for part in ("train", "val"))
        classes = build.supervised(recipe, data_root, device) if recipe.outer.pretrain else None
    if not folder.config.is_file():
        _begin(folder, recipe, training, validation, data_root)
        recipe = folder.recipe()
    if isinstance(processes, Several):
        place = str(folder.path.absolute())
        processes.tell({"run": place, "data_root": data_root, "threads": torch.get_num_threads()})
    learner = folder.fresh()
    console.print(f"{recipe.algorithm.name} on {training.about}")
    console.print(describe_protocol(recipe, learner, training))
    own, fewer = (sizes_of(source).get("ways") for source in (training, validation))
    if own and fewer and fewer < own:
        console.print(f"validation tasks have {fewer} classes: there are no more to validate with")
    if classes is not None:
        console.print(f"first {recipe.outer.pretrain} steps of pretraining on all {classes.outputs} classes at once")
    if build.unlabelled(recipe, "val"):
        console.print("validation tasks are made without labels as well: they say how well changed copies or clusters "
                      "are told apart, not new classes")  # fmt: skip
    file = Recipe.from_json(
        folder.read_config()["recipe"]
    ).strategy.file  # the name that the user gave, not the folder's copy
    console.print(f"strategy: {described(learner.strategy)}{f', with the learned values of {file}' if file else ''}")
    if (began := folder.read_config().get("about", {}).get("start")) and not folder.last.is_file():
        console.print(f"begins with {began}")
    done, total, metric = folder.saved_step(), recipe.outer.meta_steps, training.target.metrics[0]
    if folder.last.is_file() and done < total:
        console.print(f"Resuming after step {done + recipe.outer.pretrain if done <= 0 else done}")
    if processes.world_size > 1:
        console.print(f"{processes.world_size} processes{f': {idle}' if idle else ''}")
    notice = "Finishing this step, then saving." + " Press again to stop at once." * (processes.world_size == 1)
    with Interrupt(notice, again=processes.world_size == 1) as interrupt:
        asked = lambda: interrupt.asked is not None  # noqa: E731
        steps = train(folder, recipe, training, validation, asked, classes, processes, device)
        try:
            with closing(steps):
                first = done if folder.last.is_file() else -recipe.outer.pretrain
                last = follow(steps, total, first)
        except KeyboardInterrupt:
            saved = folder.saved_step()
            kept = f"the checkpoint of step {saved} is kept" if folder.last.is_file() else "nothing was saved yet"
            _stopped(f"Stopped at once; {kept}", again, interrupt)
        stopped = processes.any(interrupt.asked is not None)
    if stopped and last is not None and last.step < total:
        where = f"step {last.step}" if last.step > 0 else f"step {last.step + recipe.outer.pretrain} of pretraining"
        _stopped(f"Stopped after {where}; everything is saved", again, interrupt)
    best = f"; best validation {metric.name} {metric.shown(folder.best_validation())}" if folder.best.is_file() else ""
    taken = folder.saved_step()
    waited = f"{recipe.outer.patience} validations in a row were not better"
    ended = f"Ended early after {taken} of {total} outer steps, because {waited}"
    console.print(f"{ended if taken < total else f'{total} outer steps done'}{best}; the run is in {folder.path}")


def _begin(
    folder: RunFolder, recipe: Recipe, training: TaskSource, validation: TaskSource, data_root: str | None
) -> None:
    """Write the configuration of a new run."""
    setting = build.setting(recipe, training)
    if recipe.engine is not None and recipe.engine.name == "auto":
        recipe = _with_engine(recipe, build.learner(recipe, setting).to(chosen_device()), training)
    if recipe.execution.compile == "auto":
        recipe = _with_execution(recipe, build.learner(recipe, setting).to(chosen_device()), training)
    words = describe_protocol(recipe, build.learner(recipe, setting), training)
    about = {"training": training.about, "validation": validation.about, "protocol": words}
    folder.create(recipe, about, str(Path(data_root).absolute()) if data_root else None, setting)


def _with_engine(recipe: Recipe, learner: Learner, training: TaskSource) -> Recipe:
    """Return the recipe with the engine that ``explain`` chooses: it is printed and saved, and used on resumption."""
    found = explain(learner, training.draw(task_seeds(recipe.outer.tasks, generator(recipe.outer.seed, TRAIN))))
    console.print(f"engine: {found.chosen.name}, {found.why} (see rbml explain)")
    engine: Any = found.chosen.engine
    name = next(name for name, kind in hypergrad.ALL.items() if isinstance(engine, kind))
    kind: Any = hypergrad.ALL[name]
    plain = vars(kind())
    options = {key: value for key, value in vars(engine).items() if plain.get(key) != value}
    return recipe.changed(engine=name, engine_options=options)


def _with_execution(recipe: Recipe, learner: Learner, training: TaskSource) -> Recipe:
    """Return the recipe with the way of execution that pays: it is printed and saved, and used on resumption."""
    with console.status("measuring how to run this (--compile auto)"):
        seeds = task_seeds(recipe.outer.tasks, generator(recipe.outer.seed, TRAIN))
        found = choose(learner, training.draw(seeds))
    console.print(f"compile: {found}")
    return recipe.changed(compile=found.execution.compile, chunk=found.execution.chunk)


def _stopped(how: str, again: str, interrupt: Interrupt) -> NoReturn:
    """Print how to resume, and exit with the code of the signal."""
    console.print(f"{how}. Resume with: {again}")
    raise SystemExit(128 + (interrupt.asked or signal.SIGINT))


def describe_protocol(recipe: Recipe, learner: Learner, tasks: TaskSource) -> str:
    """Return what is done, in one line."""
    parts = [describe_sizes(sizes_of(tasks)), describe_steps(learner.steps)]
    parts += [f"{recipe.outer.tasks} tasks per outer step", f"{recipe.outer.meta_steps} outer steps"]
    parts += [f"batch norm {learner.statistics}"] * normalises(learner)
    return ", ".join(parts)
